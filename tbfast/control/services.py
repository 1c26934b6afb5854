"""What the REST application needs from the rest of the controller, as narrow interfaces."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from tbfast.control.accounts import Accounts
from tbfast.control.attributes import AttributeService
from tbfast.control.claims import Claims
from tbfast.control.device_calls import DeviceCalls
from tbfast.control.packages import PackageService
from tbfast.control.registry import Registry
from tbfast.control.rpc import RpcService
from tbfast.control.ws.watches import Watches
from tbfast.model.ranges import RangeQuery


class SeriesReader(Protocol):
    """Stored telemetry, answered as JSON text: {"key":[{"ts":..,"value":..},..],..}.

    Values have their JSON type. Keys without points are absent.
    """

    async def range(self, device: int, query: RangeQuery) -> bytes:
        """Points or buckets; PeerError for buckets that cannot be had."""

    async def latest(self, device: int, keys: Sequence[str] | None) -> bytes:
        """The newest point of each key; None keys = all."""

    async def latest_of(self, devices: Sequence[int], keys: Sequence[str]) -> list[bytes]:
        """As `latest`, for each device."""

    async def keys(self, device: int) -> list[str]:
        """Names of the device's keys."""


class SeriesWriter(Protocol):
    """Storing telemetry in a device's name."""

    async def save(self, device: int, payload: bytes) -> int:
        """Points of a telemetry payload, durable on return; PeerError if it is refused."""


class SeriesDeletes(Protocol):
    """Deleting stored telemetry; returns when it is on disk."""

    async def delete(
        self,
        device: int,
        keys: Sequence[str] | None,
        *,
        start_ms: int | None = None,
        end_ms: int | None = None,
        latest: bool = True,
        rewrite_latest: bool = False,
    ) -> None:
        """Points with start_ms <= ts < end_ms; None keys = all.

        ``latest``: latest values in that range too; ``rewrite_latest``: what is left follows them.
        """


class LiveRows(Protocol):
    """One subscription; an async generator is one."""

    def __aiter__(self) -> "LiveRows":
        """Itself."""

    async def __anext__(self) -> bytes:
        """One or more complete JSON lines {"device":number,"ts":..,"key":..,"value":..}."""

    async def aclose(self) -> None:
        """End the subscription."""


class LiveFeed(Protocol):
    """Telemetry as it is committed."""

    def subscribe(self, devices: frozenset[int] | None) -> LiveRows:
        """Rows committed from now on, of these device numbers; None = all devices.

        The queue is bounded; a subscriber that reads too slowly gets ResourceError.
        """


class WorkerInfo(msgspec.Struct, frozen=True, rename="camel"):
    """One ingest process; ``state`` is starting, serving, stopping or down."""

    index: int
    pid: int
    state: str
    connections: int = 0
    journal_bytes: int = 0


class NodeInfo(msgspec.Struct, frozen=True, rename="camel"):
    """The node at a glance; ports as bound, 0 while a listener is not up."""

    version: str
    pid: int
    supervisor_pid: int
    uptime_ms: int
    durability: str
    mqtt_port: int
    http_port: int
    workers: list[WorkerInfo]
    https_port: int = 0


class NodeStatus(Protocol):
    """The processes of this node."""

    async def status(self) -> NodeInfo:
        """Their present state."""


class StoreUpkeep(Protocol):
    """What the owner of the node asks of its stores."""

    async def seal(self) -> msgspec.Struct:
        """Seals everything acknowledged before the call; what that was, for JSON."""

    def snapshot(self) -> AsyncIterator[bytes]:
        """One line of JSON that says where a copy of the stores is while the iteration lasts."""


@dataclass(frozen=True, slots=True)
class Services:
    """Everything `tbfast.control.rest.build_app` works on."""

    registry: Registry
    series: SeriesReader
    writer: SeriesWriter
    attributes: AttributeService
    rpc: RpcService
    device_calls: DeviceCalls
    live: LiveFeed
    node: NodeStatus
    deletes: SeriesDeletes
    upkeep: StoreUpkeep
    watches: Watches
    accounts: Accounts
    claims: Claims
    packages: PackageService
