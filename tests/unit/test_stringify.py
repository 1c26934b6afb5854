"""Values as strings: C against the obvious way (REST spec 7)."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbfast._ext.stringify import stringified

TEXT = st.text(max_size=12)
NESTED = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
VALUES = NESTED | st.floats(allow_nan=False, allow_infinity=False)
POINTS = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), VALUES), max_size=5)


def answer(series: dict[str, list[tuple[int, Any]]], *, spaces: bool, ascii_only: bool) -> bytes:
    """As the reader writes it; what a device nested keeps the device's spaces."""
    separators = (", ", ": ") if spaces else (",", ":")
    parts = []
    for name, points in series.items():
        items = ",".join(
            f'{{"ts":{ts},"value":'
            f"{json.dumps(value, separators=separators, ensure_ascii=ascii_only)}}}"
            for ts, value in points
        )
        parts.append(f"{json.dumps(name, ensure_ascii=ascii_only)}:[{items}]")
    return ("{" + ",".join(parts) + "}").encode()


def as_string(value: Any, *, spaces: bool, ascii_only: bool) -> str | None:
    if value is None or isinstance(value, str):
        return value
    separators = (", ", ": ") if spaces else (",", ":")
    return json.dumps(value, separators=separators, ensure_ascii=ascii_only)


@given(st.dictionaries(TEXT, POINTS, max_size=4), st.booleans(), st.booleans())
def test_every_value_becomes_its_text(
    series: dict[str, list[tuple[int, Any]]], spaces: bool, ascii_only: bool
) -> None:
    found = json.loads(stringified(answer(series, spaces=spaces, ascii_only=ascii_only)))
    assert found == {
        name: [
            {"ts": ts, "value": as_string(value, spaces=spaces, ascii_only=ascii_only)}
            for ts, value in points
        ]
        for name, points in series.items()
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1.50", '"1.50"'),
        ("true", '"true"'),
        ("null", "null"),
        ('"a\\"}"', '"a\\"}"'),
        ('{"a":"\\u00e9\\\\"}', '"{\\"a\\":\\"\\\\u00e9\\\\\\\\\\"}"'),
        ('["]\\"",\t1]', '"[\\"]\\\\\\"\\",\\t1]"'),
        ("[" + "\t" * 10_000 + "]", '"[' + "\\t" * 10_000 + ']"'),
    ],
)
def test_texts(value: str, expected: str) -> None:
    text = '{"k":[{"ts":-1,"value":%s}],"n":[]}'
    assert stringified((text % value).encode()).decode() == text % expected


WHOLE = b'{"k":[{"ts":1,"value":2},{"ts":2,"value":"\\""}],"l":[{"ts":1,"value":[{"a":"]"}]}]}'


def test_another_form_is_refused() -> None:
    assert stringified(WHOLE)
    for length in range(len(WHOLE)):
        with pytest.raises(ValueError, match="no answer"):
            stringified(WHOLE[:length])
    for text in (WHOLE + b" ", b"[]", b'{"k":[{"ts":1,"value":}]}', b'{"k":[{"ts":1 ,"value":1}]}'):
        with pytest.raises(ValueError, match="no answer"):
            stringified(text)
