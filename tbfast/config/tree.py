"""The configuration tree, with the default and the description of each value."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tbfast.config.listeners import ALL_ADDRESSES, Certificates, Http, Json, Mqtt, RateLimits
from tbfast.config.node import (
    Activity,
    Actors,
    Admin,
    ClientSideRpc,
    Disk,
    Journal,
    Log,
    Ota,
    Queue,
    Rpc,
    Security,
    Series,
    Sessions,
    State,
)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything an operator can set."""

    data_dir: Annotated[
        str,
        Meta(
            min_length=1,
            description="directory of everything stored; created if missing",
            extra={"flag": "--data-dir"},
        ),
    ] = "./tbfast-data"
    workers: Annotated[
        int,
        Meta(
            ge=0,
            le=256,
            description="ingest processes; 0 = processor cores - 1, at least 1",
            extra={"flag": "--workers"},
        ),
    ] = 0
    durability: Annotated[
        Literal["disk", "process"],
        Meta(
            description="what an acknowledgement survives: disk = power loss, "
            "process = kill -9 but not power loss",
            extra={"flag": "--durability"},
        ),
    ] = "disk"
    host: Annotated[
        str,
        Meta(
            min_length=1,
            description="address all listeners bind to unless they have their own",
            extra={"flag": "--host"},
        ),
    ] = ALL_ADDRESSES
    mqtt: Mqtt = Mqtt()
    http: Http = Http()
    json: Json = Json()
    sessions: Sessions = Sessions()
    activity: Activity = Activity()
    actors: Actors = Actors()
    client_side_rpc: ClientSideRpc = ClientSideRpc()
    rpc: Rpc = Rpc()
    ssl: Certificates = Certificates()
    rate_limits: RateLimits = RateLimits()
    state: State = State()
    security: Security = Security()
    journal: Journal = Journal()
    series: Series = Series()
    disk: Disk = Disk()
    ota: Ota = Ota()
    queue: Queue = Queue()
    admin: Admin = Admin()
    log: Log = Log()

    def worker_count(self, cores: int) -> int:
        """Number of ingest processes on a machine with ``cores`` processor cores."""
        return self.workers or max(1, cores - 1)
