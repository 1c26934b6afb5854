"""Paths of the HTTP device API: whose token, which endpoint, which methods (HTTP spec 3)."""

import re
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from tbfast import limits
from tbfast.codec.http import Head, HttpError

ROOT: Final = b"/api/v1/"
_REFUSED: Final = re.compile(rb"//|;|\\|%(?:2f|5c|00|25|3b)", re.IGNORECASE)
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")

_CHARSET: Final = re.compile(rb";\s*charset=\"?([A-Za-z0-9_-]+)", re.IGNORECASE)
_CHARSETS: Final = frozenset(
    (
        "us-ascii", "iso-8859-1", "iso-8859-15", "utf-16", "utf-16be", "utf-16le", "gbk", "gb2312",
        *(f"windows-{number}" for number in range(1250, 1259)),
    )
)  # fmt: skip

# Endpoint by the segments after the token; `*` stands for one number.
_ENDPOINTS: Final[dict[tuple[str, ...], tuple[str, ...]]] = {
    ("telemetry",): ("POST",),
    ("attributes",): ("GET", "POST"),
    ("attributes", "updates"): ("GET",),
    ("rpc",): ("GET", "POST"),
    ("rpc", "*"): ("POST",),
    ("claim",): ("POST",),
    ("firmware",): ("GET",),
    ("software",): ("GET",),
}
_PROVISION: Final = ("POST",)


class Target(NamedTuple):
    """An endpoint of one device; token is "" for provisioning, which has none."""

    token: str
    name: str  # the endpoint's segments, joined with a slash
    argument: str  # what stands for `*`
    methods: tuple[str, ...]

    @property
    def allow(self) -> str:
        """Value of the Allow header."""
        head = ("HEAD",) if "GET" in self.methods else ()
        return ", ".join((*self.methods, *head, "OPTIONS"))


def target(path: bytes) -> Target | None:
    """The endpoint at a path below ROOT, None if there is none.

    Raises HttpError (400) for a path that could be read in two ways (HTTP spec 1).
    """
    if _REFUSED.search(path):
        raise HttpError(400, "The path is ambiguous")
    try:
        token, *rest = (unquote_to_bytes(part).decode() for part in path[len(ROOT) :].split(b"/"))
    except UnicodeDecodeError:
        return None
    if token == "provision" and not rest:  # the path's word
        return Target("", "provision", "", _PROVISION)
    methods = _ENDPOINTS.get(tuple(rest))
    if methods is not None and "*" not in rest:
        return Target(token, "/".join(rest), "", methods)
    if len(rest) == 2 and rest[0] == "rpc" and rest[1]:
        return Target(token, "rpc/*", rest[1], _ENDPOINTS["rpc", "*"])
    return None


def parameters(head: Head) -> dict[str, str]:
    """Query parameters, repeated ones joined with commas; HttpError (400) for bad encoding."""
    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(
            head.query.decode("ascii"), keep_blank_values=True, encoding="utf-8", errors="strict"
        )
    except (UnicodeDecodeError, ValueError) as error:
        raise HttpError(400, "The query is not valid UTF-8") from error
    for name, value in pairs:
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def integer(text: str, what: str) -> int:
    """A 64-bit integer; HttpError (400) for anything else."""
    if not _INTEGER.fullmatch(text) or not -(1 << 63) <= int(text) < 1 << 63:
        raise HttpError(400, f"{what} is not an integer")
    return int(text)


def utf8(head: Head, body: bytes) -> bytes:
    """The body in UTF-8, from the charset its Content-Type names (HTTP spec 1).

    What is no text in that charset becomes U+FFFD, as in the container.  HttpError (415) for a
    charset that no device sends: some of Python's take quadratic time.
    """
    named = _CHARSET.search(head.header(b"content-type") or b"")
    if named is None:
        return body
    charset = named[1].decode("ascii").lower()
    if charset in ("utf-8", "utf8"):
        return body
    if charset not in _CHARSETS:
        raise HttpError(415, "The charset is not supported", "payload")
    return body.decode(charset, "replace").encode()


class PayloadLimits:
    """`pattern=bytes;...`: the first pattern that matches a path decides (HTTP spec 6).

    `*` is one segment, `**` any number of them.
    """

    def __init__(self, text: str) -> None:
        pairs = [pair.rpartition("=") for pair in text.split(";")]
        self._rules = [
            (_pattern(pattern), min(int(size), limits.REST_BODY_BYTES))
            for pattern, _, size in pairs
        ]

    @property
    def least(self) -> int:
        """The smallest of them."""
        return min(size for _, size in self._rules)

    def of(self, path: bytes) -> int:
        """Bytes a body of that path may have; HTTP_DEVICE_BODY_BYTES if no pattern matches."""
        for pattern, size in self._rules:
            if pattern.fullmatch(path):
                return size
        return limits.HTTP_DEVICE_BODY_BYTES


def _pattern(text: str) -> re.Pattern[bytes]:
    words = {"": "", "*": "[^/]+", "**": ".*"}
    parts = [words.get(part, re.escape(part)) for part in text.split("/")]
    found = "/".join(parts)
    if found.endswith("/.*"):
        found = found.removesuffix("/.*") + "(?:/.*)?"
    return re.compile(found.encode(), re.DOTALL)
