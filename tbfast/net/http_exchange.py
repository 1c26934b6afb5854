"""One HTTP request and the answer it is owed, as handlers see them."""

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from tbfast.codec.http import Admission, Head, Request, Response

_ERROR_CODES: Final = {
    400: 31, 401: 10, 403: 20, 404: 32, 405: 31, 413: 31, 429: 33,
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


def _ignored() -> None:
    """Nobody wants to know."""


def _ignored_flag(paused: bool) -> None:
    """Nobody wants to know."""


class Companion(Protocol):
    """What a handler keeps for the later requests of a connection."""

    def close(self) -> None: ...


class Carrier(Protocol):
    """The connection of an exchange: tbfast.net.http._Connection."""

    companion: Companion | None

    def peer(self) -> str: ...
    def answered(self, exchange: "Exchange", response: Response) -> None: ...
    def read_piece(self) -> tuple[bytes, bool]: ...
    def write(self, data: bytes) -> None: ...
    def ended(self, *, keep_alive: bool) -> None: ...
    def splice(self, receive: Callable[[bytes], None]) -> bytes: ...
    def pause(self, on: bool) -> None: ...
    def abort(self) -> None: ...


class Exchange:
    """A request is answered once; what comes later, or after the peer has gone, is ignored.

    request: None for one on the fast path, whose head says nothing unusual.
    on_gone() is called if the peer goes before the answer; on_body() when more of a streamed body
    has come; on_pause(True) when the peer takes the answer too slowly, on_pause(False) after.
    """

    __slots__ = (
        "_carrier",
        "begun",
        "connection",
        "headers",
        "on_body",
        "on_gone",
        "on_pause",
        "read_ns",
        "request",
    )

    def __init__(self, carrier: Carrier, request: Request | None, read_ns: int) -> None:
        self._carrier: Carrier | None = carrier
        self.connection = carrier
        self.request = request
        self.read_ns = read_ns  # monotonic
        self.begun = False  # parts of the answer are on their way
        self.headers: tuple[tuple[str, str], ...] = ()  # added to a whole answer
        self.on_gone: Callable[[], None] = _ignored
        self.on_body: Callable[[], None] = _ignored
        self.on_pause: Callable[[bool], None] = _ignored_flag

    @property
    def open(self) -> bool:
        """Whether an answer is still owed, to somebody who is there."""
        return self._carrier is not None

    def answer(self, response: Response) -> None:
        """The whole answer."""
        carrier, self._carrier = self._carrier, None
        if carrier is not None:
            carrier.answered(self, response)

    def gone(self) -> None:
        """The peer has gone."""
        if self._carrier is not None:
            self._carrier = None
            self.on_gone()

    # --- answers in pieces -------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """A part of the answer, head included, as it goes out."""
        if self._carrier is not None:
            self.begun = True
            self._carrier.write(data)

    def end(self, *, keep_alive: bool) -> None:
        """The answer written in parts is complete."""
        carrier, self._carrier = self._carrier, None
        if carrier is not None:
            carrier.ended(keep_alive=keep_alive)


class Handler(Protocol):
    """Serves some of the paths."""

    def admit(self, head: Head) -> Admission | None:
        """How the body is taken; None = the path is another handler's.  May raise HttpError."""

    def begin(self, exchange: Exchange) -> None:
        """Answers, now or later."""
