"""Calls of devices that are kept: what is stored of one, and all its states (MQTT spec 5.1).

            sent       delivered   overdue   requeued  dropped    answered    failed  expired
QUEUED      SENT       DELIVERED   TIMEOUT   QUEUED    QUEUED     SUCCESSFUL  FAILED  EXPIRED
SENT        SENT       DELIVERED   TIMEOUT   QUEUED    QUEUED     SUCCESSFUL  FAILED  EXPIRED
DELIVERED   SENT       DELIVERED   TIMEOUT   QUEUED    DELIVERED  SUCCESSFUL  FAILED  EXPIRED
TIMEOUT     SENT       DELIVERED   TIMEOUT   QUEUED    TIMEOUT    SUCCESSFUL  FAILED  EXPIRED

SUCCESSFUL, FAILED and EXPIRED are final, DELIVERED too where no answer is wanted.  Nothing moves a
call that is in a final state; one that is deleted is gone.
"""

from typing import Annotated, Final, Literal

import msgspec

from tbfast import limits

Status = Literal["QUEUED", "SENT", "DELIVERED", "SUCCESSFUL", "TIMEOUT", "EXPIRED", "FAILED"]
Strategy = Literal[
    "BURST", "SEQUENTIAL_ON_ACK_FROM_DEVICE", "SEQUENTIAL_ON_RESPONSE_FROM_DEVICE"
]  # fmt: skip
# overdue: no acknowledgement in time; requeued: so for the last time, and its session is closed;
# dropped: its session ended before the acknowledgement.
Event = Literal[
    "sent", "delivered", "overdue", "requeued", "dropped", "answered", "failed", "expired"
]

RPC_OF_INDEX: Final = "rpc-of:"  # + id of a device : time : id
RPC_OPEN_INDEX: Final = "rpc-open:"  # + id
RPC_DONE_INDEX: Final = "rpc-done:"  # + time : id

_NEXT: Final[dict[Event, Status]] = {
    "sent": "SENT",
    "delivered": "DELIVERED",
    "overdue": "TIMEOUT",
    "requeued": "QUEUED",
    "answered": "SUCCESSFUL",
    "failed": "FAILED",
    "expired": "EXPIRED",
}
_FINAL: Final = ("SUCCESSFUL", "FAILED", "EXPIRED")


class PersistentCall(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """``number`` is the id the device sees, counted per device; ``device`` its own number.

    ``params``, ``info`` and ``response`` are JSON text, b"" = none.  ``overdue`` counts deliveries
    that were not acknowledged in time.
    """

    id: str
    device_id: str
    device: Annotated[int, msgspec.Meta(ge=1)]
    number: Annotated[int, msgspec.Meta(ge=0)]
    created_ms: int
    expires_ms: int
    oneway: bool
    method: str
    params: bytes
    retries: int | None = None
    info: bytes = b""
    status: Status = "QUEUED"
    response: bytes = b""
    overdue: int = 0

    @property
    def final(self) -> bool:
        """Whether nothing more will become of it."""
        return self.status in _FINAL or (self.oneway and self.status == "DELIVERED")

    @property
    def index_keys(self) -> tuple[str, ...]:
        """How the registry finds it: by its device, and among the open or the finished ones."""
        at = f"{self.created_ms:015d}:{self.id}"
        state = RPC_DONE_INDEX + at if self.final else RPC_OPEN_INDEX + self.id
        return (f"{RPC_OF_INDEX}{self.device_id}:{at}", state)


def moved(call: PersistentCall, event: Event, response: bytes = b"") -> PersistentCall:
    """The call after an event; itself once it is final."""
    if call.final:
        return call
    if event == "dropped":
        status: Status = "QUEUED" if call.status == "SENT" else call.status
    else:
        status = _NEXT[event]
    overdue = call.overdue + 1 if event == "overdue" else 0 if event == "requeued" else call.overdue
    return msgspec.structs.replace(call, status=status, response=response, overdue=overdue)


def answer_to_keep(body: bytes) -> bytes:
    """A device's answer as it is stored: JSON as it is, anything else as {"error":"<text>"}."""
    if len(body) > limits.RPC_ANSWER_BYTES:
        return error_text(f"the answer is longer than {limits.RPC_ANSWER_BYTES} bytes")
    if not body:
        return body
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return error_text(body.decode(errors="replace"))
    return body


def error_text(message: str) -> bytes:
    """The response of a call that has none."""
    return msgspec.json.encode({"error": message})
