"""Frozen value types shared by every room; no behaviour beyond their own invariants."""
