"""Slow, obvious decoder of telemetry JSON (MQTT spec 3.1-3.3, 4.1); knows nothing of ext/c.

A document becomes a tree (dict, list, str, Number, bool, None) character by character; the rules
then run on the tree.
"""

import re
from decimal import Decimal
from typing import Any, NamedTuple

from tests.support.rows import Number

SPACE = " \t\r\n"
WORD_END = "/\\;#={}[]:, \t\f\r\n"
RFC_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
PARSABLE = re.compile(r"-?\d*\.?\d*")
BAD_KEY = re.compile(r"[ \t\n\v\f\r]*\Z|.*\{\{.*\}\}|.*<[/!A-Za-z].*>", re.DOTALL)
INT64 = range(-(2**63), 2**63)


class Refused(Exception):
    """The payload is refused as a whole."""


class Options(NamedTuple):
    type_cast: bool = True
    max_string: int = 0
    max_depth: int = 255
    max_keys: int = 10_000
    max_plain: int = 4_096


class OracleRow(NamedTuple):
    """JSON values are trees as of rows.parse_strict."""

    ts: int
    key: str
    type: str
    value: Any


class _Reader:
    def __init__(self, text: str, options: Options) -> None:
        self.text, self.at, self.options = text, 0, options

    def peek(self) -> str:
        if self.at >= len(self.text):
            raise Refused("ends too early")
        return self.text[self.at]

    def take(self) -> str:
        char = self.peek()
        self.at += 1
        return char

    def starts(self, prefix: str) -> bool:
        return self.text.startswith(prefix, self.at)

    def blank(self) -> str:
        """Skips white space and comments; the character after them."""
        while True:
            char = self.peek()
            if char in SPACE:
                self.at += 1
            elif self.starts("/*"):
                end = self.text.find("*/", self.at + 2)
                if end < 0:
                    raise Refused("open comment")
                self.at = end + 2
            elif self.starts("//") or char == "#":
                while self.at < len(self.text) and self.text[self.at] not in "\r\n":
                    self.at += 1
            else:
                return char

    def quoted(self) -> str:
        quote = self.take()
        out = []
        while (char := self.take()) != quote:
            out.append(self.escape() if char == "\\" else char)
        # Halves that belong together become one character; the others are replaced.
        text = (
            "".join(out).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        )
        return re.sub("[\ud800-\udfff]", "�", text)

    def escape(self) -> str:
        char = self.take()
        if char in "\"'\\/\n":
            return char
        if char in "bfnrt":
            return "\b\f\n\r\t"["bfnrt".index(char)]
        digits = self.text[self.at : self.at + 4]
        if char != "u" or not re.fullmatch("[0-9a-fA-F]{4}", digits):
            raise Refused("escape")
        self.at += 4
        return chr(int(digits, 16))

    def word(self) -> str:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in WORD_END:
            self.at += 1
        if self.at == start:
            raise Refused("a value or name is missing")
        return self.text[start : self.at]

    def value(self, depth: int) -> Any:
        char = self.blank()
        if char in "'\"":
            return self.quoted()
        if char in "{[":
            if depth > self.options.max_depth:
                raise Refused("depth")
            self.at += 1
            return self.object(depth) if char == "{" else self.array(depth)
        word = self.word()
        keyword = {"true": True, "false": False, "null": None}
        if word.isascii() and word.lower() in keyword:
            return keyword[word.lower()]
        return Number(word) if RFC_NUMBER.fullmatch(word) else word

    def object(self, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        count = 0
        while True:
            char = self.blank()
            if char == "}":
                self.at += 1
                return out
            if count:
                if self.take() not in ",;":
                    raise Refused("no comma")
                char = self.blank()
            name = self.quoted() if char in "'\"" else self.word()
            char = self.blank()
            self.at += 1
            if char == "=" and self.starts(">"):
                self.at += 1
            elif char not in ":=":
                raise Refused("no colon")
            count += 1
            if count > self.options.max_keys:
                raise Refused("members")
            out[name] = self.value(depth + 1)

    def array(self, depth: int) -> list[Any]:
        out: list[Any] = []
        first = True
        while True:
            char = self.blank()
            if char == "]":
                self.at += 1
                return out
            if not first:
                if self.take() not in ",;":
                    raise Refused("no comma")
                char = self.blank()
            first = False
            out.append(None if char in ",;]" else self.value(depth + 1))

    def document(self) -> Any:
        self.blank()
        if self.starts(")]}'\n"):
            self.at += 5
        value = self.value(1)
        if self.text[self.at :].strip(SPACE):
            raise Refused("something after the document")
        return value


def _parse(payload: bytes, options: Options) -> Any:
    text = payload.decode("utf-8", "replace")
    return _Reader(text.removeprefix("\ufeff"), options).document()


class _Exact:
    """Digits, decimals and sign of a number text, with the length of its plain form."""

    def __init__(self, text: str, max_plain: int) -> None:
        mantissa, _, exponent = text.lower().partition("e")
        power = Decimal(exponent or 0)
        self.negative = mantissa.startswith("-")
        integer, _, fraction = mantissa.lstrip("-").partition(".")
        self.digits = (integer + fraction).lstrip("0")
        self.simple = "." in mantissa and not exponent
        self.scale = len(fraction) - power
        self.stripped = self.digits.rstrip("0")
        self.integral = (
            not self.digits or self.scale <= len(self.digits) - len(self.stripped)
        ) and not self.simple
        self.explodes = False
        if exponent and self.digits:
            n = len(self.digits)
            plain = n - self.scale if self.scale <= 0 else max(1, n - self.scale) + 1 + self.scale
            plain += self.negative
            self.explodes = plain > max_plain and plain > len(text)

    def plain(self) -> str:
        sign = "-" if self.negative and self.digits else ""
        scale = int(self.scale)
        if scale <= 0:
            return sign + (self.digits + "0" * -scale if self.digits else "0")
        padded = self.digits.rjust(scale + 1, "0")
        return f"{sign}{padded[:-scale]}.{padded[-scale:]}"


def _number(text: str, options: Options) -> tuple[str, Any]:
    exact = _Exact(text, options.max_plain)
    if exact.integral:
        if not exact.digits:
            return "INT64", 0
        if len(exact.digits) - exact.scale <= 19 and _fits(value := Decimal(text)):
            return "INT64", int(value)
    elif exact.scale <= 16:
        plain = exact.plain()
        while plain.endswith("0") and plain[-2] != ".":
            plain = plain[:-1]
        mantissa = int(plain.replace(".", "")) if len(plain) < 4000 else 2**64
        if mantissa in INT64:
            value = Decimal(mantissa).scaleb(plain.index(".") + 1 - len(plain))
            return "DECIMAL", value
        if abs(float(plain)) != float("inf"):
            return "DOUBLE", float(plain)
    if exact.explodes or not options.type_cast:
        raise Refused("number")
    return "STRING", exact.plain()


def _fits(value: Decimal) -> bool:
    return -(2**63) <= value < 2**63


def _is_parsable(text: str) -> bool:
    bmp = all(ord(char) < 0x10000 for char in text)
    return bool(bmp and PARSABLE.fullmatch(text) and not text.endswith((".", "-")) and text)


def _ascii_digits(text: str) -> str:
    return "".join(char if char in "-." else str(int(char)) for char in text)


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _tree(value: Any) -> Any:
    if isinstance(value, dict):
        return ("object", [(k, _tree(v)) for k, v in value.items() if v is not None])
    if isinstance(value, list):
        return [_tree(v) for v in value]
    return value


def _typed(value: Any, options: Options) -> tuple[str, Any]:
    if isinstance(value, bool):
        return "BOOL", value
    if isinstance(value, Number):
        return _number(value, options)
    if isinstance(value, str):
        if 0 < options.max_string < _units(value):
            raise Refused("string")
        if options.type_cast and _is_parsable(value):
            return _number(_ascii_digits(value), options)
        return "STRING", value
    return "JSON", _tree(value)


def _time(value: Any, options: Options) -> int:
    if isinstance(value, Number):
        exact = _Exact(value, options.max_plain)
        if exact.explodes:
            raise Refused("ts")
        if not exact.digits or len(exact.digits) <= exact.scale:
            return 0
        if len(exact.digits) - exact.scale > 19:
            raise Refused("ts")
        ts = int(Decimal(exact.plain().partition(".")[0]))
    elif isinstance(value, str) and re.fullmatch("[+-]?[0-9]+", value):
        ts = int(value) if len(value) < 4000 else 2**64
    else:
        raise Refused("ts")
    if ts not in INT64:
        raise Refused("ts")
    return ts


def _record(ts: int, members: dict[str, Any], options: Options) -> list[OracleRow]:
    rows = [
        OracleRow(ts, key, *_typed(value, options))
        for key, value in members.items()
        if value is not None
    ]
    if any(BAD_KEY.match(row.key) or _units(row.key) > 255 for row in rows):
        return []
    return rows


def _element(element: Any, now_ms: int, options: Options) -> list[OracleRow]:
    if not isinstance(element, dict):
        raise Refused("not an object")
    if "ts" in element and "values" in element:
        ts = _time(element["ts"], options)
        if not isinstance(element["values"], dict):
            raise Refused("values")
        return _record(ts, element["values"], options)
    return _record(now_ms, element, options)


def telemetry(payload: bytes, now_ms: int, options: Options | None = None) -> list[list[OracleRow]]:
    """Records in order, those without rows left out; Refused for the whole payload."""
    options = options or Options()
    document = _parse(payload, options)
    elements = document if isinstance(document, list) else [document]
    records = [_element(element, now_ms, options) for element in elements]
    return [record for record in records if record]


def attributes(
    payload: bytes, now_ms: int, options: Options | None = None
) -> list[list[OracleRow]]:
    """One record of client attributes, or none; Refused for the whole payload."""
    options = options or Options()
    document = _parse(payload, options)
    if not isinstance(document, dict):
        raise Refused("not an object")
    record = _record(now_ms, document, options)
    return [record] if record else []
