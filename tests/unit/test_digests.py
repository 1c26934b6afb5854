"""Checksums of packages by vectors nobody here computed (REST spec 9)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbfast._ext.murmur import Murmur3
from tbfast.model.package import ChecksumAlgorithm
from tbfast.store.digests import new_digest

FOX = b"The quick brown fox jumps over the lazy dog"
# CRC32: the check value 0xCBF43926 of the catalogue of CRCs; Murmur: Guava's own tests.
VECTORS: list[tuple[ChecksumAlgorithm, bytes, str]] = [
    ("CRC32", b"123456789", "2639f4cb"),
    ("CRC32", b"", "00000000"),
    ("MD5", FOX, "9e107d9d372bb6826bd81d3542a419d6"),
    ("SHA256", FOX, "d7a8fbb307d7809469ca9abcb0082e4f8d5651e46d3cdb762d02d0bf37c9e592"),
    (
        "SHA384", b"abc",
        "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed"
        "8086072ba1e7cc2358baeca134c825a7",
    ),
    (
        "SHA512", b"abc",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
        "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    ),
    ("MURMUR3_32", FOX, "23f74f2e"),
    ("MURMUR3_32", b"hello", "47fa8b24"),
    ("MURMUR3_128", FOX, "6c1b07bc7bbc4be347939ac4a93c437a"),
    ("MURMUR3_128", b"hello", "029bbd41b3a7d8cb191dae486a901e5b"),
]  # fmt: skip


@pytest.mark.parametrize(("algorithm", "data", "wanted"), VECTORS)
def test_vectors(algorithm: ChecksumAlgorithm, data: bytes, wanted: str) -> None:
    for step in (1, 3, max(1, len(data))):
        digest = new_digest(algorithm)
        for at in range(0, len(data), step):
            digest.update(data[at : at + step])
        assert digest.digest().hex() == wanted


@given(st.sampled_from([32, 128]), st.lists(st.binary(max_size=40), max_size=8))
def test_murmur_does_not_see_the_pieces(bits: int, pieces: list[bytes]) -> None:
    whole, split = Murmur3(bits), Murmur3(bits)
    whole.update(b"".join(pieces))
    for piece in pieces:
        split.update(piece)
    assert split.digest() == whole.digest()
    assert split.digest() == whole.digest(), "asking twice changes nothing"
    assert len(whole.digest()) == bits // 8


def test_murmur_has_two_sizes() -> None:
    with pytest.raises(ValueError, match="32 or 128"):
        Murmur3(64)
