"""OTA packages: what there is to download, and where its bytes are (REST spec 9)."""

import re
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import msgspec

PackageType = Literal["FIRMWARE", "SOFTWARE"]
ChecksumAlgorithm = Literal[
    "MD5", "SHA256", "SHA384", "SHA512", "CRC32", "MURMUR3_32", "MURMUR3_128"
]

PACKAGE_INDEX: Final = "package:"  # + type : title, line feed, version
PROFILE_OF_INDEX: Final = "profile-of:"  # + id of a package : id of a profile
PREFIXES: Final[dict[PackageType, str]] = {"FIRMWARE": "fw", "SOFTWARE": "sw"}


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A package as the registry knows it; ``revision`` grows by one per save.

    Its bytes are in a file under its id (``has_data``), or elsewhere (``url``), or not there yet.
    """

    id: str
    profile_id: str
    type: PackageType
    title: str
    version: str
    tag: str | None = None
    url: str | None = None
    has_data: bool = False
    file_name: str | None = None
    content_type: str | None = None
    checksum_algorithm: ChecksumAlgorithm | None = None
    checksum: str | None = None
    size: Annotated[int, msgspec.Meta(ge=0)] | None = None
    additional_info: dict[str, Any] | None = None
    created_ms: int
    revision: int = 1

    @property
    def usable(self) -> bool:
        """Whether devices can be given it."""
        return self.has_data or self.url is not None


_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_MEDIA_TYPE: Final = re.compile(r"[!#$&^_.+0-9A-Za-z-]+/[!#$&^_.+0-9A-Za-z-]+(;[ -~]*)?")


def disposition(file_name: str) -> tuple[tuple[str, str], ...]:
    """Headers that name a file (HTTP spec 5): quoted only where it is no token."""
    plain = quote(file_name, safe=" !#$&'()*+,/:;=?@[]\"\\")
    if _TOKEN.fullmatch(plain):
        shown = plain
    else:
        shown = '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return ("Content-Disposition", f"attachment;filename={shown}"), ("x-filename", plain)


def media_type(text: str | None) -> str:
    """A stored content type, or what stands for one that is none (HTTP spec 5)."""
    return text if text and _MEDIA_TYPE.fullmatch(text) else "application/octet-stream"
