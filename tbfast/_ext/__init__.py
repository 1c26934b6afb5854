"""Compiled modules (Cython over the C parsers of ``ext/c``); built in place by ``make build``."""
