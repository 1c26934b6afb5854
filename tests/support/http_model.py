"""Heads as a general parser (llhttp) and plain Python see them: the model of `_ext.http_head`."""

import re
from typing import NamedTuple

import httptools

from tbfast import limits
from tbfast.errors import HttpError

PEER = b"x-tbfast-peer"
_HOP = frozenset(
    (
        b"connection", b"content-length", b"keep-alive", b"proxy-authenticate",
        b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
        b"upgrade",
    )
)  # fmt: skip
_CLAIMS = frozenset(
    (
        PEER, b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port",
        b"x-forwarded-proto", b"x-real-ip", b"http2-settings",
    )
)  # fmt: skip
_LETTERS = re.compile(rb"[A-Za-z]*")
_ABSOLUTE = re.compile(rb"https?://([^/?]*)")
_LENGTH = re.compile(rb"[0-9]+")
_ANSWER = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([^\r\n\0]*))?\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*\r\n)*)\r\n"
)


class ModelHead(NamedTuple):
    method: str
    target: bytes
    path: bytes
    query: bytes
    authority: bytes | None
    version: str
    headers: tuple[tuple[bytes, bytes], ...]
    keep_alive: bool
    expects_continue: bool
    chunked: bool
    length: int
    websocket: bool


class _Parts:
    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, part: bytes) -> None:
        self.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip(b" \t")))  # RFC 9110 5.5


def options(values: list[bytes]) -> set[bytes]:
    """Of Connection headers."""
    return {word.strip(b" \t").lower() for value in values for word in value.split(b",")} - {b""}


def read_request(data: bytes) -> ModelHead:
    """HttpError for a head that is not right."""
    first, _, rest = data.partition(b"\r\n")
    if not first[:1].isalpha():  # llhttp skips ends of lines
        raise HttpError(400, "line")
    if len(first) > limits.HTTP_TARGET_BYTES + 32:
        raise HttpError(414, "target")
    if rest.count(b"\r\n") > limits.HTTP_HEADERS + 1:
        raise HttpError(431, "headers")
    parts = _Parts()
    parser = httptools.HttpRequestParser(parts)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserInvalidMethodError as error:
        method = first.partition(b" ")[0]
        known = _LETTERS.fullmatch(method) and first.endswith((b" HTTP/1.1", b" HTTP/1.0"))
        raise HttpError(405 if known else 400, "method") from error
    except httptools.HttpParserError as error:
        raise HttpError(400, str(error)) from error
    version = parser.get_http_version()
    if version not in ("1.0", "1.1") or not first.endswith(b" HTTP/" + version.encode()):
        raise HttpError(400, "version")
    if len(parts.target) > limits.HTTP_TARGET_BYTES:
        raise HttpError(414, "target")

    def values(name: bytes) -> list[bytes]:
        return [value for key, value in parts.headers if key == name]

    if len(values(b"host")) > 1 or (not values(b"host") and version == "1.1"):
        raise HttpError(400, "host")
    encodings = values(b"transfer-encoding")
    if encodings and (version != "1.1" or [value.lower() for value in encodings] != [b"chunked"]):
        raise HttpError(400, "encoding")
    length = int((values(b"content-length") or [b"0"])[0])
    asked = options(values(b"connection"))
    said = asked | options(values(b"proxy-connection"))
    absolute = None if parts.target.startswith(b"/") else _ABSOLUTE.match(parts.target)
    place = parts.target[absolute.end() :] if absolute else parts.target
    if absolute and not place.startswith(b"/"):
        place = b"/"
    method = parser.get_method().decode("ascii")
    return ModelHead(
        method,
        parts.target,
        place.partition(b"?")[0],
        parts.target.partition(b"?")[2],
        absolute[1] if absolute else None,
        version,
        tuple(parts.headers),
        b"close" not in said and (version == "1.1" or b"keep-alive" in said),
        version == "1.1" and b"100-continue" in [value.lower() for value in values(b"expect")],
        bool(encodings),
        length,
        not encodings and length == 0 and method == "GET" and version == "1.1"
        and (values(b"upgrade") or [b""])[-1].lower() == b"websocket" and b"upgrade" in asked,
    )  # fmt: skip


def forward(head: ModelHead, peer: bytes) -> bytes:
    """What the controller gets; HttpError (400, 404)."""
    if not head.path.startswith(b"/"):
        raise HttpError(404, "no path")
    headers = dict(head.headers)
    host = headers.get(b"host", b"localhost")
    if head.authority is not None and head.authority.lower() != host.lower():
        raise HttpError(400, "another host")
    named = options([value for name, value in head.headers if name == b"connection"])
    lines = [b"%b: %b" % (PEER, peer)]
    lines += (
        b"%b: %b" % (name, value)
        for name, value in head.headers
        if name not in _HOP | _CLAIMS | {b"expect", b"host"} | named
    )
    if head.chunked:
        lines.append(b"transfer-encoding: chunked")
    elif b"content-length" in headers:
        lines.append(b"content-length: %d" % head.length)
    if head.websocket:
        lines.append(b"connection: upgrade\r\nupgrade: websocket")
    elif head.expects_continue:
        lines.append(b"expect: 100-continue")
    query = b"?" + head.query if head.query else b""
    start = b"%b %b%b HTTP/1.1\r\nhost: %b\r\n" % (head.method.encode(), head.path, query, host)
    return start + b"\r\n".join((*lines, b"", b""))


class ModelAnswer(NamedTuple):
    status: int
    reason: bytes
    lines: tuple[bytes, ...]  # that are passed on
    length: int | None  # of the body; None: chunked, or up to the close
    chunked: bool
    keep_alive: bool

    def encode(self, old: bool, *, keep_alive: bool, chunked: bool) -> bytes:
        """The head for a peer; old: of HTTP/1.0."""
        end = b"transfer-encoding: chunked\r\n\r\n" if chunked else b"\r\n"
        if self.status == 101:
            end = b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"
        elif self.status < 200:
            end = b"\r\n"
        elif not keep_alive:
            end = b"connection: close\r\n" + end
        elif old:
            end = b"connection: keep-alive\r\n" + end
        return b"\r\n".join((b"HTTP/1.1 %d %b" % (self.status, self.reason), *self.lines, end))


def read_answer(data: bytes, method: str) -> ModelAnswer:
    """HttpError (502) for a head that is not right."""
    match = _ANSWER.fullmatch(data)
    if match is None:
        raise HttpError(502, "malformed")
    version, code, reason, text = match.groups()
    status = int(code)
    headers = [
        (line.partition(b":")[0].lower(), line.partition(b":")[2].strip(b" \t"), line)
        for line in text.split(b"\r\n")[:-1]
    ]
    lengths = [value for name, value, _ in headers if name == b"content-length"]
    encodings = [value.lower() for name, value, _ in headers if name == b"transfer-encoding"]
    named = options([value for name, value, _ in headers if name == b"connection"])
    if len(lengths) + len(encodings) > 1 or encodings not in ([], [b"chunked"]):
        raise HttpError(502, "framing")
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        raise HttpError(502, "length")
    lines = [line for name, _, line in headers if name not in _HOP | named]
    if lengths and status >= 200 and status != 204:
        lines.append(b"content-length: %d" % int(lengths[0]))
    bodiless = method == "HEAD" or status < 200 or status in (204, 304)
    length = 0 if bodiless else int(lengths[0]) if lengths else None
    chunked = bool(encodings) and not bodiless
    persistent = b"close" not in named and (version == b"1" or b"keep-alive" in named)
    return ModelAnswer(
        status, reason or b"", tuple(lines), length, chunked,
        persistent and (chunked or length is not None),
    )  # fmt: skip
