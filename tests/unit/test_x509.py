"""What CONNECT has to know about a client certificate (hostile-input N9)."""

import pytest

from tbfast.codec.x509 import common_name, read_chain
from tbfast.errors import PeerError
from tests.support.certificates import Certificate, forged


def named(name: bytes) -> bytes:
    """A well-signed certificate with four bytes of a name that no library would write."""
    return forged(Certificate("AAAA.example"), b"AAAA", name)


def test_a_name_is_read() -> None:
    assert common_name(named(b"BBBB")) == "BBBB.example"
    assert read_chain((named(b"BBBB"),)).chain


@pytest.mark.parametrize("name", [b"\xff\xfe\xc3\x28", b"a\xed\xa0\x80", b"\xf4\x90\x80\x80"])
def test_a_name_that_is_no_text_is_nobodys(name: bytes) -> None:
    with pytest.raises(PeerError):
        common_name(named(name))


def test_bytes_that_are_no_certificate() -> None:
    good = named(b"BBBB")
    for bad in (
        b"",
        good[:-1],
        good + b"\0",
        b"\x30\x84\xff\xff\xff\xff",
        good.replace(b"B", b"", 1),
    ):
        with pytest.raises(PeerError):
            read_chain((bad,))
