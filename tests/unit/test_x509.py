"""What CONNECT has to know about a client certificate (hostile-input N9)."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tbfast.codec.x509 import common_name, read_chain
from tbfast.errors import PeerError
from tests.support.certificates import Certificate


def der_of(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8 or 1, "big")
    return bytes([tag]) + (size if len(body) < 0x80 else bytes([0x80 | len(size)]) + size) + body


def named(name: bytes) -> bytes:
    """A well-signed certificate with four bytes of a name that no library would write."""
    template = Certificate("AAAA.example")
    signed = template.certificate.tbs_certificate_bytes.replace(b"AAAA", name)
    signature = template.key.sign(signed, ec.ECDSA(hashes.SHA256()))
    ecdsa_with_sha256 = bytes.fromhex("300a06082a8648ce3d040302")
    return der_of(0x30, signed, ecdsa_with_sha256, der_of(0x03, b"\0" + signature))


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
