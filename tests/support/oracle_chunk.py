"""Slow, obvious reader of series chunks (ext/c/tbf_chunk.h, tbf_ints.h, tbf_doubles.h)."""

import struct
from typing import Any

from tests.support.rows import crc32c

Point = tuple[int, str, Any]
KINDS = ["INT64", "DECIMAL", "NUMBER", "FORMS", "DOUBLE", "BOOL", "STRING", "JSON", "BYTES"]
MIXED = 9
WIDTHS = [*range(27), 32, 40, 48, 56, 64]
CLASSES = ["NUMBER", "DOUBLE", "FALSE", "TRUE", "STRING", "JSON", "BYTES"]
BATCH = 128


def wrap(value: int) -> int:
    """Into the range of int64."""
    return (value + 2**63) % 2**64 - 2**63


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, n: int) -> bytes:
        assert self.at + n <= len(self.data), "cut short"
        self.at += n
        return self.data[self.at - n : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                assert value < 1 << 64
                return value

    def zigzag(self) -> int:
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def blob(self) -> bytes:
        return self.take(self.varint())

    def bits(self, n: int, width: int) -> list[int]:
        number = int.from_bytes(self.take((n * width + 7) // 8), "little")
        return [number >> i * width & (1 << width) - 1 for i in range(n)]


class Integers:
    """A stream of integer blocks; `last` None = the first block is led by its first value."""

    def __init__(self, last: int | None) -> None:
        self.last, self.step = last, 0

    def block(self, data: Bytes, n: int) -> list[int]:
        if self.last is None:
            self.last = data.zigzag()
            return [self.last, *(self.block(data, n - 1) if n > 1 else [])]
        head = data.byte()
        slope = data.zigzag() if head & 3 == 3 else 0
        base = data.zigzag()
        high: dict[int, int] = {}
        if head & 4:
            positions = [data.byte() for _ in range(data.byte())]
            high = {position: data.varint() for position in positions}
        width = WIDTHS[head >> 3]
        before, out = self.last, []
        for i, low in enumerate(data.bits(n, width)):
            prediction = {
                0: before,
                1: self.last,
                2: self.last + self.step,
                3: before + (wrap((i + 1) * slope) >> 8),
            }[head & 3]
            value = wrap(prediction + base + low + (high.get(i, 0) << width))
            self.step = wrap(value - self.last)
            self.last = value
            out.append(value)
        return out


class Doubles:
    """A stream of double blocks, as bits."""

    def __init__(self) -> None:
        self.mantissas = Integers(None)
        self.last: int | None = None

    def block(self, data: Bytes, n: int) -> list[float]:
        head = data.byte()
        if head & 3 == 0:
            bits = self._xor(data, n)
        else:
            count = data.byte() if head & 4 else 0
            exceptions = [
                (data.byte(), int.from_bytes(data.take(8), "little")) for _ in range(count)
            ]
            bits = []
            for m in self.mantissas.block(data, n):
                value = float(m) / 10.0 ** (head >> 3)
                if head & 3 == 2:
                    (value,) = struct.unpack("f", struct.pack("f", value))
                bits += struct.unpack("<Q", struct.pack("<d", value))
            for position, exact in exceptions:
                bits[position] = exact
        self.last = bits[-1]
        return [struct.unpack("<d", struct.pack("<Q", b))[0] for b in bits]

    def _xor(self, data: Bytes, n: int) -> list[int]:
        out = []
        last = self.last
        if last is None:
            last = int.from_bytes(data.take(8), "little")
            out.append(last)
        shift, width = data.byte(), data.byte()
        for x in data.bits(n - len(out), width):
            last ^= x << shift
            out.append(last)
        return out


class Values:
    """The values of one column."""

    def __init__(self, kind: int, data: Bytes) -> None:
        self.kind, self.data = kind & 15, data
        self.number_kind = data.byte() if self.kind == MIXED else min(self.kind, 4)
        self.scale = data.byte() if self.number_kind in (1, 2) else 0
        self.floor = data.byte() if self.number_kind == 2 else self.scale
        self.dictionary = [data.blob() for _ in range(data.varint())] if kind & 16 else None
        self.numbers, self.forms = Integers(None), Integers(0)
        self.classes, self.indexes, self.doubles = Integers(0), Integers(0), Doubles()

    def batch(self, n: int) -> list[tuple[str, Any]]:
        if self.kind != MIXED:
            return self._pure(KINDS[self.kind], n)
        classes = [CLASSES[c] for c in self.classes.block(self.data, n)]
        numbers = iter(self._pure("NUMBER", classes.count("NUMBER")))
        doubles = iter(self._pure("DOUBLE", classes.count("DOUBLE")))
        texts = iter(self._texts(sum(c in KINDS[6:] for c in classes)))
        out: list[tuple[str, Any]] = []
        for name in classes:
            if name == "NUMBER":
                out.append(next(numbers))
            elif name == "DOUBLE":
                out.append(next(doubles))
            elif name in ("FALSE", "TRUE"):
                out.append(("BOOL", name == "TRUE"))
            else:
                out.append(text(name, next(texts)))
        return out

    def _pure(self, name: str, n: int) -> list[tuple[str, Any]]:
        if n == 0:
            return []
        if name == "DOUBLE":
            return [("DOUBLE", v) for v in self.doubles.block(self.data, n)]
        if name == "BOOL":
            return [("BOOL", bool(v)) for v in self.classes.block(self.data, n)]
        if name in KINDS[6:]:
            return [text(name, v) for v in self._texts(n)]
        forms = self.forms.block(self.data, n) if self.number_kind == 3 else [None] * n
        return [
            self._number(m, form)
            for m, form in zip(self.numbers.block(self.data, n), forms, strict=True)
        ]

    def _number(self, m: int, form: int | None) -> tuple[str, Any]:
        if self.number_kind == 0 or form == 0:
            return ("INT64", m)
        if form is not None:
            return ("DECIMAL", (m, form - 1))
        scale = self.scale
        while scale > self.floor and m % 10 == 0:
            m, scale = m // 10, scale - 1
        return ("DECIMAL", (m, scale)) if scale or self.number_kind == 1 else ("INT64", m)

    def _texts(self, n: int) -> list[bytes]:
        if n == 0:
            return []
        if self.dictionary is None:
            return [self.data.blob() for _ in range(n)]
        return [self.dictionary[i] for i in self.indexes.block(self.data, n)]


def text(name: str, value: bytes) -> tuple[str, Any]:
    return (name, value if name == "BYTES" else value.decode())


def times(data: Bytes) -> list[int]:
    n, first = data.varint(), data.zigzag()
    if n == 1:
        return [first]
    last = first + data.varint()
    if n == 2:
        return [first, last]
    blocks = Bytes(data.blob())
    stream, out = Integers(first), [first]
    while len(out) < n:
        out += stream.block(blocks, min(n - len(out), BATCH - len(out) % BATCH))
    assert blocks.at == len(blocks.data)
    assert out[-1] == last
    return out


def decode(chunk: bytes) -> list[tuple[int, list[Point]]]:
    """[(key, [(ts_ms, type name, value), ...]), ...]."""
    assert chunk[0] == 0xC1
    assert int.from_bytes(chunk[1:5], "little") == crc32c(chunk[:1] + chunk[5:])
    data = Bytes(chunk)
    data.take(5)
    columns = []
    for _ in range(data.varint()):
        here = data.at
        key, back = data.varint(), data.varint()
        if back:
            shared = Bytes(chunk)
            shared.take(here - back)
            ts = times(shared)
        else:
            ts = times(data)
        kind = data.byte()
        body = Bytes(data.blob())
        values, points = Values(kind, body), []
        for at in range(0, len(ts), BATCH):
            part = ts[at : at + BATCH]
            points += [(t, *v) for t, v in zip(part, values.batch(len(part)), strict=True)]
        assert body.at == len(body.data)
        columns.append((key, points))
    assert data.at == len(chunk)
    return columns
