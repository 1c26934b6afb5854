"""Shared device operations, written once and used by every protocol."""
