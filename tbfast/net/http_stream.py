"""Exchanges whose body comes in parts and whose answer leaves in parts, with bounds both ways."""

from collections.abc import Callable

from tbfast import limits
from tbfast.codec.http import Request, RequestReader
from tbfast.net.http_exchange import Carrier, Exchange, Link


def _no_part(part: bytes, last: bool) -> None:
    """Nobody takes the body yet."""


def _no_flow(on: bool) -> None:
    """Nothing is being sent."""


class Stream(Exchange):
    """A request that is handed on while it arrives.

    on_part(bytes, last): of the body, or after `splice` of whatever the peer sends.
    on_flow(on): the peer takes more of the answer, or it is to stop.
    """

    __slots__ = (
        "_began_s", "_moved_bytes", "_wanting", "begun", "on_flow", "on_part", "spliced",
    )  # fmt: skip

    def __init__(self, carrier: Carrier, request: Request, read_ns: int) -> None:
        super().__init__(carrier, request, read_ns)
        self.on_part: Callable[[bytes, bool], None] = _no_part
        self.on_flow: Callable[[bool], None] = _no_flow
        self.begun = False  # something of the answer has left
        self.spliced = False
        self._wanting = False
        self._began_s = 0.0
        self._moved_bytes = 0

    def renew(self, carrier: Carrier, request: Request) -> None:
        """The next request of the same connection, for the same handler; the one before is over."""
        self._carrier = carrier
        self.request = request
        self.headers = ()
        self.begun = self.spliced = self._wanting = False
        self._began_s = 0.0

    # --- for the handler ----------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """Address of who asks."""
        return "" if self._carrier is None else self._carrier.peer

    @property
    def forwarded(self) -> bytes:
        """Who asks and how, as the controller is told."""
        return b"" if self._carrier is None else self._carrier.forwarded

    @property
    def link(self) -> Link | None:
        """What was kept for this connection."""
        return None if self._carrier is None else self._carrier.link

    @link.setter
    def link(self, link: Link | None) -> None:
        if self._carrier is not None:
            self._carrier.link = link

    def want(self, on: bool) -> None:
        """Parts of the body may come, or must wait."""
        if on != self._wanting:
            self._wanting = on
            if self._carrier is not None:
                self._carrier.body_wanted()

    def send_interim(self, head: bytes) -> None:
        """The head of an answer that another one follows."""
        if self._carrier is not None:
            self._carrier.send(head)

    def send(self, data: bytes) -> None:
        """Part of the answer, framed."""
        self.begun = True
        self.send_interim(data)

    def finish(self, *, keep_alive: bool) -> None:
        """The answer is complete; if not keep_alive, nothing follows it on this connection."""
        carrier, self._carrier = self._carrier, None
        if carrier is not None:
            carrier.finished(keep_alive=keep_alive)

    def pass_answer(self, answer: bytes) -> None:
        """The whole answer, framed; the connection goes on."""
        carrier, self._carrier = self._carrier, None
        if carrier is not None:
            carrier.passed(answer)

    def break_off(self) -> None:
        """The answer cannot be completed: the connection must end so that the peer notices."""
        carrier, self._carrier = self._carrier, None
        if carrier is not None:
            carrier.broke_off()

    def splice(self) -> None:
        """From here on bytes are passed as they are, both ways."""
        self.spliced = True
        if self._carrier is not None:
            self._carrier.splice()

    # --- for the connection -------------------------------------------------------------------

    def wants(self) -> bool:
        """Whether parts may come."""
        return self._wanting

    def pump(self, reader: RequestReader, now_s: float) -> bool:
        """Hands on what there is of the body; whether it is the peer's turn to send more.

        Raises HttpError.
        """
        if not self.wants():
            self._began_s = 0.0  # the peer's time does not run
            return False
        while self.wants() and self.open and reader.in_body:
            part = reader.next_part()
            if not part and reader.in_body:
                if self._began_s == 0.0:
                    self._began_s, self._moved_bytes = now_s, 0
                return True
            self.pass_part(part, not reader.in_body)
        return False

    def pass_part(self, part: bytes, last: bool) -> None:
        """Hands on a part of the body, which is wanted."""
        self._moved_bytes += len(part)
        self.on_part(part, last)

    def patience_ms(self, now_s: float) -> int:
        """How long the body may still take: what has come buys time, at a least rate."""
        bought_s = self._moved_bytes / limits.HTTP_BODY_RATE
        return limits.HTTP_BODY_TIMEOUT_MS + int(1000 * (self._began_s + bought_s - now_s))
