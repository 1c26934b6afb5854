"""Checksums of packages (REST spec 9): lower-case hex, computed while the bytes arrive."""

import hashlib
import zlib
from typing import Final, Protocol

from tbfast._ext.murmur import Murmur3
from tbfast.model.package import ChecksumAlgorithm

_HASHLIB: Final = {"MD5": "md5", "SHA256": "sha256", "SHA384": "sha384", "SHA512": "sha512"}


class Digest(Protocol):
    """A checksum of the bytes taken so far."""

    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc32:
    """CRC-32 of ISO 3309 with its bytes in little-endian order, as Guava writes it."""

    def __init__(self) -> None:
        self._crc = 0

    def update(self, data: bytes, /) -> None:
        self._crc = zlib.crc32(data, self._crc)

    def digest(self) -> bytes:
        return self._crc.to_bytes(4, "little")


def new_digest(algorithm: ChecksumAlgorithm) -> Digest:
    """An empty digest; CRC32 and Murmur are hex of little-endian bytes."""
    if algorithm == "CRC32":
        return _Crc32()
    if algorithm in ("MURMUR3_32", "MURMUR3_128"):
        return Murmur3(int(algorithm.rpartition("_")[2]))
    return hashlib.new(_HASHLIB[algorithm], usedforsecurity=False)
