class Head:
    """Request line and headers of one request; HttpError if they are not right.

    Every byte of a head is read once, strictly (RFC 9112 2 to 6): see tbf_http_head.h.
    raw: up to and with the empty line.
    """

    def __init__(self, raw: bytes) -> None: ...
    @property
    def method(self) -> str: ...
    @property
    def path(self) -> bytes:
        """The target's path, still percent-encoded; a named host is ignored (H12)."""

    @property
    def query(self) -> bytes:
        """What follows the first question mark, still encoded."""

    @property
    def target(self) -> bytes: ...
    @property
    def authority(self) -> bytes | None:
        """The host an absolute target names, None for another form (RFC 9112 3.2.2)."""

    @property
    def version(self) -> str: ...
    @property
    def keep_alive(self) -> bool: ...
    @property
    def expects_continue(self) -> bool:
        """Whether the peer would like to hear 100 (Continue) before it sends the body."""

    @property
    def chunked(self) -> bool: ...
    @property
    def length(self) -> int:
        """Bytes of the body as Content-Length says, 0 without one."""

    @property
    def has_body(self) -> bool: ...
    @property
    def websocket(self) -> bool:
        """Whether it asks to upgrade to the one protocol that may follow (RFC 6455 4.1)."""

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Names in lower case, order kept."""

    def header(self, name: bytes) -> bytes | None:
        """First value of a header, by its lower-case name."""

    def forward(self, peer: bytes) -> bytes:
        """The head written anew for the controller; peer: address of who sent it.

        Nothing of the message's framing is passed on, it is built from what was understood; no
        header of the connection and none that claims to say who the peer is.
        HttpError (400, 404) for a target that is no path of this node.
        """

def whole_request(
    data: bytes, peer: bytes, reserved: tuple[bytes, ...]
) -> tuple[Head, bytes] | None:
    """The head and what the controller gets if the bytes are exactly one request for it, else None.

    reserved: what paths of others begin with.  A body is at most limits.HTTP_BODY_BYTES long.
    None: anything else, right or wrong or unusual, is for the strict reader.
    """

class AnswerHead:
    """Status line and headers of an answer to a request with that method; HttpError (502)."""

    def __init__(self, raw: bytes, method: str) -> None: ...
    @property
    def status(self) -> int: ...
    @property
    def interim(self) -> bool:
        """Whether the answer proper is still to come (RFC 9110 15.2)."""

    @property
    def length(self) -> int | None:
        """Bytes of the body; None: chunked, or up to the close."""

    @property
    def chunked(self) -> bool: ...
    @property
    def keep_alive(self) -> bool:
        """Whether the connection is good for another request."""

    def encode(self, asked: Head, *, keep_alive: bool, chunked: bool) -> bytes:
        """The head for the peer; chunked: how a body of unknown length is framed for it."""

def whole_answer(data: bytes, asked: Head) -> bytes | None:
    """What the peer gets if the bytes are exactly one answer and both connections go on, else None.

    None: anything else, right or wrong, is for the strict reader.
    """
