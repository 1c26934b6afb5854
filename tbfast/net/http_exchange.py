"""One HTTP request and the answer it is owed, as handlers see them."""

import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from tbfast.codec.http import Head, Request, Response

if TYPE_CHECKING:
    from tbfast.net.http_stream import Stream

_ERROR_CODES: Final = {
    400: 31, 401: 10, 403: 20, 404: 32, 405: 31, 413: 31, 415: 31, 416: 31, 429: 33,
}  # fmt: skip  # REST spec 1.3; others are general
_GENERAL: Final = 2
RETRY: Final = (("Retry-After", "1"),)


def error_response(status: int, message: str, headers: Sequence[tuple[str, str]] = ()) -> Response:
    """The error envelope of ThingsBoard's API (REST spec 1.3)."""
    body = {
        "status": status,
        "message": message,
        "errorCode": _ERROR_CODES.get(status, _GENERAL),
        "timestamp": time.time_ns() // 1_000_000,
    }
    return Response(status, msgspec.json.encode(body), "application/json", tuple(headers))


class Origins:
    """Which web pages may read answers (HTTP spec 1.1): all, unless the configuration says else.

    Nothing is authorised by cookie or address, so another site's page gains nothing by asking.
    allowed: what the whole of an origin looks like; None = any.
    """

    def __init__(self, allowed: re.Pattern[str] | None = None) -> None:
        self._allowed = allowed

    def headers(self, head: Head) -> tuple[tuple[str, str], ...]:
        """Headers of the answer that let the page read it; none for a page that may not."""
        raw = head.header(b"origin")
        if raw is None or not raw.isascii():
            return ()
        origin = raw.decode("ascii")
        if self._allowed is not None and self._allowed.fullmatch(origin) is None:
            return ()
        return (
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Credentials", "true"),
            ("Vary", "Origin"),
        )


ANY_ORIGIN: Final = Origins()


def _ignored() -> None:
    """Nobody wants to know."""


class Link(Protocol):
    """What a handler keeps for the connection's next request."""

    def take(self, carrier: "Carrier", data: bytes, reserved: tuple[bytes, ...]) -> "Stream | None":
        """The exchange if the bytes are exactly one request for it, with nothing unusual.

        reserved: what paths of other handlers begin with.
        """

    def abandon(self) -> None:
        """The connection has ended."""


class Carrier(Protocol):
    """The connection of an exchange: tbfast.net.http._Connection."""

    peer: str
    forwarded: bytes  # who asks and how, as the controller is told
    link: "Link | None"

    @property
    def peer_ended(self) -> bool: ...
    def answered(self, exchange: "Exchange", response: Response) -> None: ...
    def send(self, data: bytes) -> None: ...
    def finished(self, *, keep_alive: bool) -> None: ...
    def passed(self, answer: bytes) -> None: ...
    def broke_off(self) -> None: ...
    def body_wanted(self) -> None: ...
    def splice(self) -> None: ...


class Exchange:
    """A request is answered once; what comes later, or after the peer has gone, is ignored.

    request: None for one on the fast path, whose head says nothing unusual; its connection owes
    it again for the next such request.
    on_gone() is called if the peer goes before the answer, on_ended() if it ends its side: it may
    wait for the answer all the same.
    """

    __slots__ = ("_carrier", "headers", "on_ended", "on_gone", "read_ns", "request")

    def __init__(self, carrier: Carrier | None, request: Request | None, read_ns: int) -> None:
        self._carrier = carrier
        self.request = request
        self.read_ns = read_ns  # monotonic
        self.headers: tuple[tuple[str, str], ...] = ()  # added to a whole answer
        self.on_gone: Callable[[], None] = _ignored
        self.on_ended: Callable[[], None] = _ignored

    @property
    def peer_ended(self) -> bool:
        """Whether the peer has ended its side already."""
        return self._carrier is not None and self._carrier.peer_ended

    @property
    def open(self) -> bool:
        """Whether an answer is still owed, to somebody who is there."""
        return self._carrier is not None

    def owe(self, carrier: Carrier) -> None:
        """An answer is owed again."""
        self._carrier = carrier

    def answer(self, response: Response) -> None:
        """The whole answer."""
        carrier, self._carrier = self._carrier, None
        if carrier is not None:
            carrier.answered(self, response)

    def ended(self) -> None:
        """The peer has ended its side."""
        if self._carrier is not None:
            self.on_ended()

    def gone(self) -> None:
        """The peer has gone."""
        if self._carrier is not None:
            self._carrier = None
            self.on_gone()


class Handler(Protocol):
    """Serves some of the paths.

    streamed: its exchanges are tbfast.net.http_stream.Stream, begun when the head is complete.
    prefixes: what its paths begin with; () = whatever the others do not take.
    """

    streamed: bool
    prefixes: tuple[bytes, ...]

    def admit(self, head: Head) -> int | None:
        """Bytes the body may have; None = the path is another handler's."""

    def begin(self, exchange: Exchange) -> None:
        """Answers, now or later."""
