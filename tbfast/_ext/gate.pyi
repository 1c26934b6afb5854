"""Compiled: see ext/tbfast/_ext/gate.pyx; used by the reactor alone."""
