"""Sockets: listeners and adapters that drive the engines."""
