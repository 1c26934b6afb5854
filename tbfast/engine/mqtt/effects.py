"""What a session asks of the world around it."""

import msgspec

from tbfast.engine.mqtt.downloads import ChunkOf
from tbfast.engine.mqtt.topics import Family, Route
from tbfast.model.auth import Presented, StoredCredentials
from tbfast.model.mqtt import Publish
from tbfast.model.operations import Delivery, Operation, ReadChunk


class Authenticate(msgspec.Struct, frozen=True):
    """Find out who this is and call `authenticated` or `auth_unavailable`."""

    client: Presented


class SessionOpened(msgspec.Struct, frozen=True):
    """CONNECT accepted: the device has a session here; an older one of it must go."""

    credentials: StoredCredentials


class Refused(msgspec.Struct, frozen=True):
    """Something was refused: one counter and one (rate-limited) log line.

    reason: fixed word; detail: our own words, never peer data; limit: the rate limit that was
    reached, as model.rates.NAMES counts them.
    """

    reason: str
    detail: str
    limit: int | None = None


class ReplyTo(msgspec.Struct, frozen=True):
    """The answer is published to the reply topic of this request."""

    route: Route
    family: Family
    request: int


class AckOf(msgspec.Struct, frozen=True):
    """The answer is the acknowledgement of this PUBLISH."""

    packet: Publish


class Ask(msgspec.Struct, frozen=True):
    """Have the controller carry this out and call `answered` with this effect and the result.

    then: None = nobody is told.
    """

    operation: Operation | ReadChunk
    then: ReplyTo | AckOf | ChunkOf | None


class Listen(msgspec.Struct, frozen=True):
    """What the session is subscribed to has changed; `pending`: open calls are wanted (again)."""

    attributes: bool
    rpc: bool
    pending: bool


class Delivered(msgspec.Struct, frozen=True):
    """What became of a push."""

    push: int
    state: Delivery


class Finish(msgspec.Struct, frozen=True):
    """Send what `output` holds, then close the connection."""


class Abort(msgspec.Struct, frozen=True):
    """Close at once, without another byte."""


Effect = Authenticate | SessionOpened | Refused | Ask | Listen | Delivered | Finish | Abort
