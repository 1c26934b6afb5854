"""Chunks of packages that a session asks for (MQTT spec 6.3).

One request at a time, in order: devices append what comes to a file, unchecked.  Which package a
request id stands for is remembered for the connection, so that one that is assigned meanwhile does
not get into the middle of another's bytes.
"""

from collections import deque
from typing import Final, NamedTuple

from tbfast import limits
from tbfast.engine.mqtt.topics import Route, Target, request_id
from tbfast.errors import PeerError
from tbfast.model.mqtt import Publish
from tbfast.model.operations import PackageFound, ReadChunk
from tbfast.model.package import PREFIXES, PackageType

ERROR_TOPIC: Final = "v2/fw/error"  # of software too
TOO_LARGE: Final = "PAYLOAD_TOO_LARGE"
# What a device is told, by why the controller has nothing for it.
ERRORS: Final = {"unassigned": "NOT_FOUND", "elsewhere": "FAILURE"}


class ChunkOf(NamedTuple):
    """A request for a chunk: `size` <= 0 = as before, or the whole file."""

    packet: Publish
    type: PackageType
    request: str
    chunk: int
    size: int

    @property
    def topic(self) -> str:
        """Where the chunk goes."""
        return f"v2/{PREFIXES[self.type]}/response/{self.request}/chunk/{self.chunk}"


class Remembered(NamedTuple):
    """What a request id stands for."""

    package: PackageFound
    size: int  # of its chunks; 0 = the whole file


def chunk_request(packet: Publish, target: Target) -> ChunkOf:
    """PeerError for numbers that are none of 32 bits."""
    chunk = request_id(target.chunk)
    if chunk is None:
        raise PeerError("the chunk number has more than 31 bits")
    size = 0
    if packet.payload:
        try:
            found = request_id(bytes(packet.payload).decode("ascii"))
        except UnicodeDecodeError:
            found = None
        if found is None:
            raise PeerError("the chunk size is no integer of 32 bits")
        size = found
    kind: PackageType = "FIRMWARE" if target.route is Route.FIRMWARE else "SOFTWARE"
    return ChunkOf(packet, kind, target.request, chunk, max(size, 0))


class Downloads:
    """The requests of one session."""

    __slots__ = ("_known", "asked", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[ChunkOf] = deque()  # bound: Settings.queue_limit
        self.asked = False  # the first of them is being answered
        # By type and request id, the one used longest ago first.
        self._known: dict[tuple[PackageType, str], Remembered] = {}

    def find(self, wanted: ChunkOf) -> Remembered | None:
        """What the request id stands for; None = the controller has to be asked."""
        key = (wanted.type, wanted.request)
        known = self._known.pop(key, None)
        if known is not None:
            known = known._replace(size=wanted.size or known.size)
            self._known[key] = known
        return known

    def remember(self, wanted: ChunkOf, package: PackageFound) -> Remembered:
        """From now on the request id stands for this package."""
        known = Remembered(package, wanted.size)
        self._known[wanted.type, wanted.request] = known
        if len(self._known) > limits.MQTT_PACKAGE_REQUESTS:
            del self._known[next(iter(self._known))]
        return known


def reading(wanted: ChunkOf, known: Remembered) -> ReadChunk | None:
    """The bytes to read, none of them past the end; None = too many for one message."""
    package, size = known
    if size == 0:
        if package.size > limits.MQTT_PACKAGE_BYTES:
            return None
        return ReadChunk(package.id, 0, package.size)
    offset = min(wanted.chunk * size, package.size)
    return ReadChunk(package.id, offset, min(size, package.size - offset))
