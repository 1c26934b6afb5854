"""The table of limits, read from the source of `tbfast.limits` so that it cannot be out of date."""

import inspect
import re
from typing import Final

import msgspec

from tbfast import limits

_ROW: Final = re.compile(r"([A-Z][A-Z0-9_]*): Final = [^#]+?(?:  # (.*))?$")
_UNITS: Final = {"_BYTES": "bytes", "_MS": "ms", "_CHARS": "characters", "_PER_SECOND": "1/s"}


class Limit(msgspec.Struct, frozen=True):
    """One bound: its value, unit ("" for a count) and reason."""

    group: str
    name: str
    value: int
    unit: str
    reason: str


def rows() -> list[Limit]:
    """All limits in the order of the source."""
    found: list[Limit] = []
    group = ""
    for line in inspect.getsource(limits).splitlines():
        if line.startswith("# "):
            group = line[2:]
        elif match := _ROW.match(line):
            name = match[1]
            unit = next((u for end, u in _UNITS.items() if name.endswith(end)), "")
            found.append(Limit(group, name, getattr(limits, name), unit, match[2] or ""))
    return found
