"""JSON payloads made to hurt (hostile input section 9; invariants I5 cost and I6 truth).

Cost is judged by ratios: eight times the bytes may cost four times eight at most, and a hostile
byte at most a few times a byte of ordinary telemetry, with room for a busy machine.
"""

import time
from collections.abc import Callable

import pytest

from tbfast._ext import tbjson
from tbfast.errors import PeerError
from tests.support.json_scan import (
    NOW_MS,
    Options,
    Refused,
    append,
    check,
    new_batch,
    records_of,
    scan,
)

SMALL, LARGE = 8_000, 64_000
ORDINARY = b'{"ts":1451649600512,"values":{"temperature":21.5,"humidity":60,"mode":"auto"}},'


def repeat(piece: bytes, n: int) -> bytes:
    return piece * (n // len(piece))


def numbered(piece: bytes, n: int) -> bytes:
    """The piece over and over, with a counter for its %d."""
    return b"".join(piece % i for i in range(n // len(piece % 10)))


# Name: payload of about n bytes.  Nearly all are as long as an MQTT packet may be.
COSTLY: dict[str, Callable[[int], bytes]] = {
    "opening brackets": lambda n: b"[" * n,
    "opening brackets in a member": lambda n: b'{"a":' + b"[" * n,
    "array of empty objects": lambda n: b"[" + repeat(b"{},", n) + b"{}]",
    "array of missing elements": lambda n: b'{"a":[' + b"," * n + b"]}",
    "array of numbers": lambda n: b'{"a":[' + repeat(b"1,", n) + b"1]}",
    "digits": lambda n: b'{"a":' + b"7" * n + b"}",
    "digits after the point": lambda n: b'{"a":0.' + b"7" * n + b"}",
    "zeros before the exponent": lambda n: b'{"a":1' + b"0" * n + b"e-%d}" % n,
    "zeros after the point": lambda n: b'{"a":1.' + b"0" * n + b"}",
    "digits in a string": lambda n: b'{"a":"' + b"7" * n + b'"}',
    "digits of another script": lambda n: b'{"a":"' + repeat("٣".encode(), n) + b'"}',
    "digits as escapes": lambda n: b'{"a":"' + repeat(rb"\u0037", n) + b'"}',
    "digits of a time": lambda n: b'{"ts":"' + b"0" * n + b'5","values":{"a":1}}',
    "escapes": lambda n: b'{"a":"' + repeat(rb"\n", n) + b'"}',
    "lone surrogates": lambda n: b'{"a":"' + repeat(rb"\ud800", n) + b'"}',
    "broken UTF-8": lambda n: b'{"a":"' + b"\xff" * n + b'"}',
    "broken UTF-8 in a name": lambda n: b'{"' + b"\xff" * n + b'":1}',
    "broken UTF-8 inside a value": lambda n: b'{"a":["' + b"\xff" * n + b'"]}',
    "escaped name": lambda n: b'{"' + repeat(rb"\n", n) + b'":1}',
    "open string": lambda n: b'{"a":"' + b"x" * n,
    "open comment": lambda n: b'{"a":/*' + b"*" * n,
    "comments": lambda n: b"{" + repeat(b"/**/", n) + b"}",
    "white space": lambda n: b'{"a":[1,' + b" " * n + b"2]}",
    "unquoted word": lambda n: b"{a:" + b"x" * n + b"}",
    "one name again and again": lambda n: b"{" + repeat(b'"a":1,', n // 2) + b'"a":1}',
    "refused name again and again": lambda n: b"[" + repeat(b'{"":1},', n) + b"{}]",
    "short names": lambda n: b"[{" + numbered(b'"%d":1},{', n) + b'"a":1}]',
    "one name again and again inside a value": lambda n: (
        b'{"o":{' + repeat(b'"a":1,', n // 2) + b'"a":1}}'
    ),
    "first and last of a name far apart": lambda n: (
        b'{"o":[' + repeat(b'{"a":1,"b":[2,3],"a":{"c":1,"c":2}},', n) + b"{}]}"
    ),
    "names inside a value": lambda n: b'{"o":[{' + numbered(b'"%d":1},{', n) + b'"a":1}]}',
    "repeated names at every level": lambda n: (
        b'{"o":[' + repeat(b'{"a":1,"a":' * 100 + b"2" + b"}" * 100 + b",", n) + b"1]}"
    ),
    "times and values again and again": lambda n: (
        b'{"ts":1,"values":{"a":1},' + repeat(b'"ts":1,"values":{"a":1},', n) + b'"ts":2}'
    ),
    "values before times": lambda n: b"[" + repeat(b'{"values":{"a":[{},{}]},"ts":1},', n) + b"{}]",
    "lenient at the very end": lambda n: b"[" + repeat(ORDINARY, n) + b"{a:1}]",
    "refused at the very end": lambda n: b"[" + repeat(ORDINARY, n) + b"1]",
    "everything at once": lambda n: (
        b'[{"values":{"o":['
        + repeat(rb'{"a\n":1,"b":"\ud800","a\n":[{"c":null}]},', n)
        + b'1]},"ts":1};{a:1}]'
    ),
}


def cost(payload: bytes) -> float:
    """CPU seconds of one append, the best of several; the batch is warm."""
    batch = new_batch()
    best = float("inf")
    for _ in range(7):
        batch.clear(NOW_MS)
        start = time.thread_time()
        for _ in range(4):
            try:
                tbjson.append_telemetry(batch, 7, payload, NOW_MS)
            except PeerError:
                continue
        best = min(best, time.thread_time() - start)
    return best / 4


@pytest.mark.parametrize("name", COSTLY)
def test_cost_is_linear(name: str) -> None:
    make = COSTLY[name]
    small, large = make(SMALL), make(LARGE)
    # Both large enough that the fixed cost of a call does not hide a square in it.
    assert cost(large) < 4 * (len(large) / len(small)) * max(cost(small), 5e-6)


def test_hostile_bytes_cost_little_more_than_ordinary_ones() -> None:
    ordinary = b"[" + repeat(ORDINARY, LARGE) + b"{}]"
    valid = cost(ordinary) / len(ordinary)
    ratios = {name: cost(make(LARGE)) / LARGE / valid for name, make in COSTLY.items()}
    # Measured on a quiet machine: at most 28, for documents that need every pass there is.
    assert max(ratios.values()) < 100, ratios


@pytest.mark.parametrize("name", COSTLY)
def test_outcome_is_the_oracles(name: str) -> None:
    check(COSTLY[name](2_000))


def test_100_000_opening_brackets_are_refused_at_the_depth_bound() -> None:
    for start in (b"[", b'{"a":', b"{a:"):
        with pytest.raises(PeerError, match=r"^nested too deeply$|not an object$"):
            append(new_batch(), start + b"[" * 100_000, Options(), attributes=False)


@pytest.mark.parametrize("escape", [b"", rb"\n", b"\xff"])
def test_64_kib_key_drops_its_record_only(escape: bytes) -> None:
    key = b"x" * 65_536 + escape
    batch = new_batch()
    append(batch, b'[{"%s":1,"a":1},{"b":2}]' % key, Options(), attributes=False)
    assert [row.key for record in records_of(batch) for row in record] == ["b"]
    assert batch.dropped_records == 1
    assert batch.key_count <= 2  # the refused name is never defined


def test_names_beyond_the_key_table_travel_inline_and_are_still_unique() -> None:
    names = [b'"n%d":%d' % (i % 500, i) for i in range(1_000)]
    records = scan(b"{" + b",".join(names) + b"}")  # 64 keys of the table
    assert {row.key: row.value for row in records[0]} == {f"n{i}": 500 + i for i in range(500)}


def test_refusal_in_the_last_element_leaves_nothing_of_the_ones_before() -> None:
    batch = new_batch()
    before = batch.to_block(1, 1, 1, 0, 1)
    for bad in (b"1", b'{"ts":null,"values":{}}', b'{"a":1e99999}', b'{"a":"\\x"}', b"{a b}"):
        with pytest.raises(PeerError):
            append(batch, b"[" + ORDINARY * 50 + bad + b"]", Options(), attributes=False)
        assert batch.to_block(1, 1, 1, 0, 1) == before
        assert batch.key_count == 0


def test_names_of_a_refused_payload_are_forgotten() -> None:
    """Also by the guess which name follows which."""
    batch, other = new_batch(), new_batch()
    append(batch, b'{"a":1}', Options(), attributes=False)
    with pytest.raises(PeerError):
        append(batch, b'{"a":1,"new":2,"newer":3]', Options(), attributes=False)
    append(other, b'{"a":1}', Options(), attributes=False)
    for each in (batch, other):
        append(each, b'{"a":1,"new":2,"b":3}', Options(), attributes=False)
        append(each, b'{"a":1,"newer":2,"new":3}', Options(), attributes=False)
    assert batch.to_block(1, 1, 1, 0, 1) == other.to_block(1, 1, 1, 0, 1)


def test_batch_bound_is_a_memory_error_and_leaves_the_batch_as_it_was() -> None:
    batch = new_batch(max_bytes=65_536)
    append(batch, b'{"a":1}', Options(), attributes=False)
    before = batch.to_block(1, 1, 1, 0, 1)
    with pytest.raises(MemoryError):
        append(batch, b'{"a":"%s"}' % (b"x" * 70_000), Options(), attributes=False)
    assert batch.to_block(1, 1, 1, 0, 1) == before
    append(batch, b'{"b":1}', Options(), attributes=False)
    assert len(records_of(batch)) == 2


def test_memory_for_rewriting_is_linear() -> None:
    """The index of nested names may need some ten times the payload, never more."""
    payload = COSTLY["names inside a value"](LARGE)
    batch = new_batch(max_bytes=16 * len(payload))
    append(batch, payload, Options(), attributes=False)
    assert batch.records == 1


@pytest.mark.parametrize("attributes", [False, True])
@pytest.mark.parametrize("type_cast", [False, True])
def test_every_prefix_of_a_document_is_refused(attributes: bool, type_cast: bool) -> None:
    """Cut anywhere it is not JSON; in a buffer of exactly its size nothing is read past the end."""
    payload = (
        rb"""{"a":"x\u00e9\ud83c\udf21","b":-1.5e+3,'c':[tRuE,,nul],"o":{"k":"v"/**/},d=>0.25}"""
    )
    options = Options(type_cast=type_cast)
    for end in range(len(payload)):
        with pytest.raises(Refused):
            scan(bytes(bytearray(payload[:end])), options, attributes=attributes)
    assert scan(payload, options, attributes=attributes)
