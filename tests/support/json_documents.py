"""Hypothesis strategies: telemetry documents rendered as strict JSON or with the lenient forms."""

from typing import Any

from hypothesis import strategies as st

from tests.support.rows import Number

DIGITS = st.text("0123456789", min_size=1, max_size=25)
# Surrogates too: as bytes they are not UTF-8, as escapes they may lack their other half.
TEXT = st.text(st.characters() | st.sampled_from("\ud83d\ude00\"'\\/\n\x01é"), max_size=12)
# Few names, so that repeats, ts and values are frequent.
NAMES = st.sampled_from(
    ["a", "b", "c", "temperature", "ts", "values", "é", "\U0001f321", "\ud83d"] * 5
    + ["", " ", "x" * 255, "x" * 256, "{{a}}", "<b>"]
) | st.one_of([TEXT.map("k{}".format)])
NUMBERS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "-"]),
    st.sampled_from(["0", "1", "9223372036854775807", "9223372036854775808"])
    | st.integers(0, 10**30).map(str),
    st.just("") | DIGITS.map(".{}".format) | DIGITS.map(".{}0000000000".format),
    st.sampled_from(
        [""] * 12 + ["e0", "E+1", "e-1", "e17", "e-17", "E99999", "e-99999", "e" + "9" * 30]
    )
    | st.integers(-30, 30).map("e{}".format),
).map(Number)
STRINGS = (
    TEXT
    | NUMBERS.map(str)
    | st.sampled_from(["007", "-.5", "5.", "-", ".", "٣", "٣.٥", "\U0001d7d8", "1e5", " 5", "+5"])
)
SCALARS = st.none() | st.booleans() | NUMBERS | STRINGS
# Objects are lists of pairs: names may repeat.
NESTED = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(st.tuples(NAMES, inner), max_size=5).map(lambda pairs: ("object", pairs))
    ),
    max_leaves=12,
)
OBJECTS = st.lists(st.tuples(NAMES, NESTED), min_size=1, max_size=6).map(
    lambda pairs: ("object", pairs)
)
TIMES = st.integers(-(2**63), 2**63).map(lambda n: Number(n)) | NUMBERS | STRINGS | SCALARS


@st.composite
def timed(draw: Any) -> Any:
    """{"ts", "values", ...} in any order, the two not always there and not always once."""
    pairs = [("ts", draw(TIMES)), ("values", draw(OBJECTS))]
    pairs += draw(st.lists(st.tuples(st.sampled_from(["ts", "values", "x"]), NESTED), max_size=2))
    return ("object", draw(st.permutations(pairs) if draw(st.booleans()) else st.just(pairs)))


ELEMENTS = OBJECTS | timed()
DOCUMENTS = ELEMENTS | st.lists(ELEMENTS, max_size=4) | ELEMENTS | NESTED


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02X}" for i in range(0, len(units), 2))


class Renderer:
    """Turns a tree into text; every free choice is drawn, the lenient ones only if allowed."""

    def __init__(self, draw: Any, *, lenient: bool) -> None:
        self.pick = lambda *options: draw(st.sampled_from(options))
        self.odd = lambda: draw(st.integers(0, 9)) == 0
        self.lenient = lenient

    def gap(self) -> str:
        if not self.odd():
            return ""
        if self.lenient:
            return self.pick(" ", "\n", "/* c' */", '// "c"\n', "#c\r", "\t")
        return self.pick(" ", "\n", "\r\n", "\t ")

    def string(self, text: str) -> str:
        bare = text and not set(text) & set("/\\;#={}[]:, \t\f\r\n\"'")
        if self.lenient and bare and self.odd():
            return text
        quote = self.pick('"', "'") if self.lenient and self.odd() else '"'
        return quote + "".join(self.char(char, quote) for char in text) + quote

    def char(self, char: str, quote: str) -> str:
        if char in (quote, "\\"):
            return "\\" + char
        if char < " ":
            if self.lenient and self.odd():
                return "\\\n" if char == "\n" else char
            return _escaped(char)
        return _escaped(char) if self.odd() else char

    def value(self, tree: Any) -> str:
        if isinstance(tree, tuple):
            comma = self.comma()
            members = [
                self.gap() + self.string(name) + self.gap() + self.colon() + self.value(value)
                for name, value in tree[1]
            ]
            return "{" + comma.join(members) + self.gap() + "}"
        if isinstance(tree, list):
            return "[" + self.comma().join(map(self.value, tree)) + self.gap() + "]"
        if isinstance(tree, Number):
            return self.gap() + tree
        if isinstance(tree, str):
            return self.gap() + self.string(tree)
        word = {None: "null", True: "true", False: "false"}[tree]
        return self.gap() + (self.pick(word.upper(), word.title()) if self.lenient else word)

    def comma(self) -> str:
        return self.gap() + (";" if self.lenient and self.odd() else ",")

    def colon(self) -> str:
        return self.pick("=", "=>", ":") if self.lenient and self.odd() else ":"


@st.composite
def payloads(draw: Any, *, lenient: bool) -> bytes:
    """UTF-8, except that surrogates of the tree become bytes that are not UTF-8."""
    text = Renderer(draw, lenient=lenient).value(draw(DOCUMENTS))
    return text.encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: Any) -> bytes:
    """A document with a piece removed, repeated or replaced by other bytes."""
    data = draw(payloads(lenient=True))
    start = draw(st.integers(0, len(data)))
    end = draw(st.integers(start, min(len(data), start + 8)))
    piece = draw(st.binary(max_size=4) | st.just(data[start:end] * 2) | PIECES)
    return data[:start] + piece + data[end:]


PIECES = st.sampled_from(
    [
        *(b"", b",", b"}", b"]", b":", b"{", b"[", b'"', b"'", b"\\", b"/*", b"//", b"#", b"=>"),
        *(b"null", b"e", b"-", b".", b"\x00", b"\xff", b"\xed\xa0\x80"),
        *(b"\\u", b"\\ud800", b"\\udc00"),
    ]
)
