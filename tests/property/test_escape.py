"""Peer data in logs: always printable, bounded, and never ambiguous."""

from hypothesis import given
from hypothesis import strategies as st

from tbfast import limits
from tbfast.obs.escape import escape_peer, plain_field, printable

anything = st.one_of(st.binary(max_size=200), st.text(max_size=200))


@given(anything)
def test_escaped_data_is_printable_ascii_and_bounded(data):
    text = escape_peer(data)
    assert text.isascii()
    assert text.isprintable()
    assert '"' not in text
    assert len(text) <= 4 * limits.LOG_PEER_BYTES + 32


@given(st.binary(max_size=limits.LOG_PEER_BYTES))
def test_short_data_can_be_read_back(data):
    assert escape_peer(data).encode().decode("unicode_escape").encode("latin-1") == data
    assert escape_peer(memoryview(data)) == escape_peer(bytearray(data)) == escape_peer(data)


@given(st.binary(min_size=limits.LOG_PEER_BYTES + 1, max_size=500))
def test_long_data_says_how_long(data):
    start = escape_peer(data[: limits.LOG_PEER_BYTES])
    assert escape_peer(data) == f"{start}... ({len(data)} bytes)"


@given(st.text())
def test_printable_is_one_line_and_leaves_printable_text_alone(text):
    shown = printable(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()


@given(st.sampled_from(["token", "password", "payload", "psk"]), anything)
def test_secret_fields_have_no_value(name, value):
    assert plain_field(name, value) == "[hidden]"
