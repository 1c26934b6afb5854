"""Scanner and oracle agree on every document; nothing else ever happens (MQTT spec 3.1-3.3)."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tbfast.errors import PeerError
from tests.support.json_documents import NUMBERS, STRINGS, damaged, payloads
from tests.support.json_scan import (
    Options,
    Refused,
    append,
    check,
    is_finite,
    new_batch,
    records_of,
    scan,
)
from tests.support.rows import Number

OPTIONS = st.builds(
    Options,
    type_cast=st.booleans(),
    max_string=st.sampled_from([0, 0, 1, 5]),
    max_depth=st.sampled_from([255, 255, 1, 2, 3]),
    max_keys=st.sampled_from([10_000, 10_000, 1, 3]),
    max_plain=st.sampled_from([4_096, 10]),
)
GOOD = b'{"before":1,"nested":{"a":"b"}}'


@given(payloads(lenient=False), OPTIONS, st.booleans())
def test_strict_documents(payload: bytes, options: Options, attributes: bool) -> None:
    check(payload, options, attributes=attributes)


@given(payloads(lenient=True), OPTIONS, st.booleans())
def test_lenient_documents(payload: bytes, options: Options, attributes: bool) -> None:
    check(payload, options, attributes=attributes)


@given(damaged(), st.booleans())
def test_damaged_documents(payload: bytes, attributes: bool) -> None:
    check(payload, attributes=attributes)


@given(st.binary(max_size=64))
@example(b"\xef\xbb\xbf{}")
@example(b"\xef\xbb")
def test_random_bytes(payload: bytes) -> None:
    check(payload)


@given(NUMBERS, st.booleans())
def test_numbers_and_the_same_text_as_a_string(number: Number, type_cast: bool) -> None:
    options = Options(type_cast=type_cast)
    check(f'{{"n":{number}}}'.encode(), options)
    check(f'{{"s":"{number}"}}'.encode(), options)


@given(
    st.text("0123456789", min_size=18, max_size=330).map(lambda digits: "1" + digits),
    st.text("0123456789", min_size=1, max_size=16),
)
@example("9007199254740993", "0000000000000000")  # halfway between two doubles
@example("9007199254740993", "0000000000000001")
@example("179769313486231580793" + "7" * 288, "5")  # the largest double, and one digit above
@example("179769313486231580794" + "7" * 288, "5")
def test_long_doubles_are_rounded_correctly(integer: str, fraction: str) -> None:
    payload = f'{{"d":-{integer}.{fraction}}}'.encode()
    check(payload)
    assert is_finite(scan(payload))


@given(STRINGS, STRINGS)
def test_strings_of_every_alphabet(key: str, value: str) -> None:
    check(json.dumps({key: value, "k": [value], "o": {key: value}}).encode())


@given(damaged() | payloads(lenient=True) | payloads(lenient=False))
def test_refusal_leaves_the_batch_untouched(payload: bytes) -> None:
    batch = new_batch(max_keys=4)  # most names travel inline, some not
    append(batch, GOOD, Options(), attributes=False)
    before = batch.to_block(1, 1, 1, 0, 1)
    try:
        append(batch, payload, Options(), attributes=False)
    except PeerError:
        assert batch.to_block(1, 1, 1, 0, 1) == before
        # Nothing remembered of the refused names either.
        other = new_batch(max_keys=4)
        append(other, GOOD, Options(), attributes=False)
        for each in (batch, other):
            append(each, b'{"a":1,"b":2,"c":3,"a":4}', Options(), attributes=False)
        assert batch.to_block(1, 1, 1, 0, 1) == other.to_block(1, 1, 1, 0, 1)
    else:
        assert records_of(batch)[1:] == scan(payload)


@given(payloads(lenient=True), st.integers(0, 40))
def test_every_alignment_and_neighbour_gives_the_same(payload: bytes, offset: int) -> None:
    """The bytes around the payload are never looked at: no quote, no digit after it counts."""
    for neighbour in (b'"', b"1", b"}", b"\\"):
        shifted = memoryview(neighbour * offset + payload + neighbour * 40)
        inside = shifted[offset : offset + len(payload)]
        batch = new_batch()
        try:
            append(batch, inside, Options(), attributes=False)
            got: object = records_of(batch)
        except PeerError:
            got = "refused"
        try:
            wanted: object = scan(payload)
        except Refused:
            wanted = "refused"
        assert got == wanted


@given(st.lists(payloads(lenient=True) | payloads(lenient=False), max_size=6))
def test_growing_batch_gives_the_same_rows(parts: list[bytes]) -> None:
    """Filled just up to its capacity, so that every payload runs out of room at another place."""
    batch = new_batch()
    filler = b'{"f":"%s"}' % (b"x" * (16_384 - 200))
    append(batch, filler, Options(), attributes=False)
    for payload in parts:
        before = len(records_of(batch))
        try:
            wanted = scan(payload)
        except Refused:
            with pytest.raises(PeerError):
                append(batch, payload, Options(), attributes=False)
        else:
            append(batch, payload, Options(), attributes=False)
            assert records_of(batch)[before:] == wanted
