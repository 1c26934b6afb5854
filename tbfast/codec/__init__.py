"""Bytes to typed values and back; no I/O, no time, no state beyond an unfinished packet."""
