"""The table of limits, read from the source of `tbfast.limits` so that it cannot be out of date."""

import ast
import inspect
import io
import tokenize
from typing import Final

import msgspec

from tbfast import limits

_UNITS: Final = {"_BYTES": "bytes", "_MS": "ms", "_CHARS": "characters", "_PER_SECOND": "1/s"}


class Limit(msgspec.Struct, frozen=True):
    """One bound: its value, unit ("" for a count) and reason."""

    group: str
    name: str
    value: int
    unit: str
    reason: str


def rows() -> list[Limit]:
    """All limits in the order of the source; a comment in the first column begins a group."""
    source = inspect.getsource(limits)
    headings: list[tuple[int, str]] = []
    reasons: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line, column = token.start
            (reasons if column else headings).append((line, token.string.lstrip("# ")))

    found: list[Limit] = []
    for node in ast.parse(source).body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        name, first, last = node.target.id, node.lineno, node.end_lineno or node.lineno
        unit = next((u for end, u in _UNITS.items() if name.endswith(end)), "")
        group = next((text for line, text in reversed(headings) if line < first), "")
        reason = " ".join(text for line, text in reasons if first <= line <= last)
        found.append(Limit(group, name, getattr(limits, name), unit, reason))
    return found
