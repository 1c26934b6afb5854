"""The HTTP reader under any split and any bytes."""

from hypothesis import given
from hypothesis import strategies as st

from tbfast import limits
from tbfast.codec.http import RequestReader
from tests.support.http_reader import outcome
from tests.support.http_strategies import pieces, requests


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
