"""Which part of an answer a request wants (RFC 9110, 14.1.2 and 14.2)."""

import re
from typing import Final

_BYTES: Final = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII | re.IGNORECASE)


def byte_range(header: str, length: int) -> range | None:
    """Offsets of the one range of a Range header; an empty range cannot be had of so many bytes.

    None: the whole answer, for what is no range, another unit, or several ranges: many small ones
    would cost more than the whole.
    """
    found = _BYTES.fullmatch(header)
    if found is None:
        return None
    first, last = found[1], found[2]
    if not first:
        if not last:
            return None
        wanted = int(last)
        return range(max(length - wanted, 0), length)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1 if last else length, length))
