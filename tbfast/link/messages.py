"""Messages of the link, version 1.

A worker connects, says `Hello`, sends a `KeyTable` for every key definition its journal holds, and
gets `Welcome` with the position after which the controller wants blocks.  From then on blocks
flow while there is credit; everything else is small and flows both ways.
"""

import msgspec

from tbfast.model.auth import StoredCredentials
from tbfast.model.operations import Delivery, Notice, Operation, Result
from tbfast.model.transport import MqttProfile

LINK_VERSION = 1


class OpenSession(msgspec.Struct, array_like=True, frozen=True):
    """A device session on a worker.

    `at_ms`: when its CONNECT was accepted, on the monotonic clock that all processes share: a
    wall clock that steps back would let the older session win.  `attributes`, `rpc`: whether it is
    subscribed to changes of shared attributes and to calls of the server.  `again`: it subscribed
    to calls while the link was down, so open ones go out again.
    """

    device: int
    slot: int
    generation: int
    at_ms: int
    attributes: bool = False
    rpc: bool = False
    again: bool = False


class Hello(msgspec.Struct, array_like=True, tag=1, frozen=True):
    """First message of a worker; `revision`: last registry change it has seen, 0 = none."""

    version: int
    worker: int
    journal_id: int
    pid: int
    epoch: int
    revision: int
    sessions: list[OpenSession]


class KeyTable(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """Key definitions of one journal epoch, numbers counting up from `first`."""

    epoch: int
    first: int
    defs: bytes


class Welcome(msgspec.Struct, array_like=True, tag=3, frozen=True):
    """Send blocks after this position.  The changes since the worker's revision follow."""

    epoch: int
    seq: int
    credit_bytes: int
    revision: int
    flush: bool  # the change log does not reach back to the worker's revision: forget everything


class Credit(msgspec.Struct, array_like=True, tag=4, frozen=True):
    """The controller has consumed this many bytes of blocks."""

    nbytes: int


class Trim(msgspec.Struct, array_like=True, tag=5, frozen=True):
    """Blocks up to this position are safe elsewhere."""

    epoch: int
    seq: int


class Lookup(msgspec.Struct, array_like=True, tag=6, frozen=True):
    """Who stands behind these credentials ids?

    chain: DER of a client's certificates, which may provision a device (MQTT spec 1.5).
    """

    request: int
    ids: list[str]
    chain: tuple[bytes, ...] = ()


class Found(msgspec.Struct, array_like=True, tag=7, frozen=True):
    """Answer to Lookup, in its order; None = unknown."""

    request: int
    credentials: list[StoredCredentials | None]


class Profile(msgspec.Struct, array_like=True, tag=21, frozen=True):
    """How sessions of a profile's devices behave from now on; None = it was deleted.

    Sent before the first credentials that name it, unless it is the default, and on every change.
    """

    profile: str
    mqtt: MqttProfile | None


class Changed(msgspec.Struct, array_like=True, tag=8, frozen=True):
    """The registry changed: forget what you know of these credentials; close these devices."""

    revision: int
    credentials_ids: list[str]
    closed_devices: list[int]
    reason: str
    removed: bool = False  # those devices exist no more


class SessionOpened(msgspec.Struct, array_like=True, tag=9, frozen=True):
    """A device was accepted here."""

    session: OpenSession


class SessionClosed(msgspec.Struct, array_like=True, tag=10, frozen=True):
    """That session has ended."""

    device: int
    slot: int
    generation: int


class TakenOver(msgspec.Struct, array_like=True, tag=11, frozen=True):
    """A newer session of the device exists: close this one."""

    device: int
    slot: int
    generation: int


class Unresponsive(msgspec.Struct, array_like=True, tag=29, frozen=True):
    """The device does not acknowledge what it is sent: close this session."""

    device: int
    slot: int
    generation: int


class WhereNow(msgspec.Struct, array_like=True, tag=12, frozen=True):
    """Up to which position is everything acknowledged?"""

    request: int


class Position(msgspec.Struct, array_like=True, tag=13, frozen=True):
    """Answer to WhereNow."""

    request: int
    epoch: int
    seq: int


class Ask(msgspec.Struct, array_like=True, tag=14, frozen=True):
    """A device wants something of the controller; it must have applied this position before."""

    request: int
    device: int
    operation: Operation
    epoch: int = 0
    seq: int = 0


class Answer(msgspec.Struct, array_like=True, tag=15, frozen=True):
    """Answer to Ask."""

    request: int
    result: Result


class Drop(msgspec.Struct, array_like=True, tag=16, frozen=True):
    """Nobody waits for the answer to that Ask any more."""

    request: int


class Listen(msgspec.Struct, array_like=True, tag=17, frozen=True):
    """What a session is subscribed to now; `pending`: calls not answered yet are wanted again."""

    device: int
    slot: int
    generation: int
    attributes: bool
    rpc: bool
    pending: bool = False


class Notify(msgspec.Struct, array_like=True, tag=18, frozen=True):
    """Tell a session this; `push` > 0: say with Delivered what became of it."""

    device: int
    slot: int
    generation: int
    notice: Notice
    push: int = 0


class Delivered(msgspec.Struct, array_like=True, tag=19, frozen=True):
    """What became of a push."""

    push: int
    state: Delivery


class Active(msgspec.Struct, array_like=True, tag=20, frozen=True):
    """(device, when) of those that did something since the last report and sent no row with it.

    The time is that of the last such thing, ms, on the clock of `OpenSession.at_ms`.
    """

    devices: list[tuple[int, int]]


Message = (
    Hello
    | KeyTable
    | Welcome
    | Credit
    | Trim
    | Lookup
    | Found
    | Changed
    | SessionOpened
    | SessionClosed
    | TakenOver
    | Unresponsive
    | WhereNow
    | Position
    | Ask
    | Answer
    | Drop
    | Listen
    | Notify
    | Delivered
    | Active
    | Profile
)
