"""Tokens of a .proto file, with the line each stands on."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from tbfast import limits
from tbfast.codec.proto_model import SchemaError

_TOKEN: Final = re.compile(
    r"""
      (?P<skip>  [ \t\r\f\v]+ | //[^\n]* )
    | (?P<line>  \n )
    | (?P<block> /\*.*?\*/ )
    | (?P<name>  [A-Za-z_][A-Za-z0-9_]* )
    | (?P<number> 0[xX][0-9a-fA-F]+ | [0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)? )
    | (?P<text>  "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' )
    | (?P<mark>  [{}\[\]()<>;=,.:+-] )
    """,
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    """kind: name, number, text, mark, or end."""

    kind: str
    text: str
    line: int


def tokens(text: str) -> Iterator[Token]:
    """Tokens up to and including one of kind `end`; SchemaError for what is no token."""
    if len(text.encode(errors="replace")) > limits.PROTO_SCHEMA_BYTES:
        raise SchemaError(f"the schema is longer than {limits.PROTO_SCHEMA_BYTES} bytes")
    at, line = 0, 1
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise SchemaError(f"unexpected character {text[at]!r}: remove it", line=line)
        kind, word = found.lastgroup or "", found.group()
        if kind in ("name", "number", "text", "mark"):
            yield Token(kind, word, line)
        line += word.count("\n")
        at = found.end()
    yield Token("end", "", line)
