"""The HTTP reader under any split and any bytes."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tbfast import limits
from tbfast.codec.http import RequestReader
from tests.support.http_reader import outcome

token = st.text("abcXYZ019-", min_size=1, max_size=8)


@st.composite
def requests(draw):
    method = draw(st.sampled_from(["GET", "POST", "HEAD", "PUT"]))
    lines = [f"{method} /{draw(token)} HTTP/1.1", "Host: a"]
    lines += [f"x-{draw(token)}: {draw(token)}" for _ in range(draw(st.integers(0, 4)))]
    body = draw(st.binary(max_size=40))
    shape = draw(st.sampled_from(["none", "length", "chunked"]))
    data = b""
    if shape == "length":
        lines.append(f"Content-Length: {len(body)}")
        data = body
    elif shape == "chunked":
        lines.append("Transfer-Encoding: chunked")
        while body:
            size = draw(st.integers(1, len(body)))
            data += b"%x\r\n" % size + body[:size] + b"\r\n"
            body = body[size:]
        data += b"0\r\n\r\n"
    return "\r\n".join([*lines, "", ""]).encode() + data


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(st.lists(requests(), min_size=1, max_size=4), st.lists(st.integers(0), max_size=8))
def test_any_split_gives_the_same_requests(parts, cuts):
    data = b"".join(parts)
    whole = outcome([data])
    assert len(whole) == len(parts)
    assert all(isinstance(found, str) for found in whole)
    assert outcome(pieces(data, cuts)) == whole


mutations = st.lists(st.tuples(st.integers(0), st.binary(max_size=4)), min_size=1, max_size=4)


@given(requests(), mutations, st.lists(st.integers(0), max_size=8))
def test_damaged_requests_are_refused_alike_under_any_split(data, changes, cuts):
    for position, patch in changes:
        at = position % (len(data) + 1)
        data = data[:at] + patch + data[at + len(patch) :]
    assert outcome(pieces(data, cuts)) == outcome([data])


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_random_bytes_give_requests_or_one_error_and_stay_bounded(parts):
    reader = RequestReader()
    found = outcome(parts, reader)
    assert sum(isinstance(item, int) for item in found) <= 1
    assert reader.buffered <= limits.HTTP_HEAD_BYTES
