"""Settings of the node behind its listeners: sessions, calls, storage, packages, logs."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tbfast import limits
from tbfast.errors import ConfigError
from tbfast.model.activity import ReportingStrategy
from tbfast.model.rpc import Strategy


class Sessions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rules for sessions of every protocol (MQTT spec 8.5)."""

    inactivity_timeout: Annotated[
        int,
        Meta(
            ge=1_000,
            description="ms without activity after which a session is closed",
            extra={"alias": "TB_TRANSPORT_SESSIONS_INACTIVITY_TIMEOUT"},
        ),
    ] = limits.MQTT_IDLE_TIMEOUT_MS
    report_timeout: Annotated[
        int,
        Meta(
            ge=500,
            le=3_600_000,
            description="ms after which the activity of a device is in its `lastActivityTime` and "
            "`active`, at most",
            extra={"alias": "TB_TRANSPORT_SESSIONS_REPORT_TIMEOUT"},
        ),
    ] = 3_000


class Activity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What activity of devices is reported (MQTT spec 8.5)."""

    reporting_strategy: Annotated[
        ReportingStrategy,
        Meta(
            description="what is reported of a device's activity within `sessions.report_timeout`: "
            "LAST = the last at its end, FIRST = the first within 0.5 s and nothing else, "
            "FIRST_AND_LAST = both, ALL = everything within 0.5 s",
            extra={"alias": "TB_TRANSPORT_ACTIVITY_REPORTING_STRATEGY"},
        ),
    ] = "LAST"


class ActorsRpc(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How calls go to devices (MQTT spec 5.1)."""

    max_retries: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            description="times that a persistent call is sent again which was not acknowledged",
            extra={"alias": "ACTORS_RPC_MAX_RETRIES"},
        ),
    ] = 5
    submit_strategy: Annotated[
        Strategy,
        Meta(
            description="BURST sends all calls at once, the others the next one when the device "
            "has acknowledged or answered the one before",
            extra={"alias": "ACTORS_RPC_SUBMIT_STRATEGY_TYPE"},
        ),
    ] = "BURST"
    response_timeout_ms: Annotated[
        int,
        Meta(
            ge=1,
            description="ms to wait for the answer where the next call waits for it",
            extra={"alias": "ACTORS_RPC_RESPONSE_TIMEOUT_MS"},
        ),
    ] = 30_000
    close_session_on_rpc_delivery_timeout: Annotated[
        bool,
        Meta(
            description="close the session of a device that does not acknowledge a persistent "
            "call, and queue the call again, where it would fail",
            extra={"alias": "ACTORS_RPC_CLOSE_SESSION_ON_RPC_DELIVERY_TIMEOUT"},
        ),
    ] = False


class ActorsSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many connections speak for one device (MQTT spec 1.7)."""

    max_concurrent_sessions_per_device: Annotated[
        int,
        Meta(
            ge=1,
            le=1,
            description="MQTT sessions of one device at once; only 1 is served: a newer session "
            "always ends the older one",
            extra={"alias": "ACTORS_MAX_CONCURRENT_SESSION_PER_DEVICE"},
        ),
    ] = 1


class Actors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ThingsBoard keeps under this name."""

    rpc: ActorsRpc = ActorsRpc()
    session: ActorsSession = ActorsSession()


class ClientSideRpc(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Calls of the server by devices (MQTT spec 5.2)."""

    timeout: Annotated[
        int,
        Meta(
            ge=100,
            le=3_600_000,
            description="ms after which a device's call that nobody answers is answered with an "
            "error",
            extra={"alias": "CLIENT_SIDE_RPC_TIMEOUT"},
        ),
    ] = limits.CALL_TIMEOUT_MS


class Rpc(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Calls in both directions."""

    builtin: Annotated[
        bool,
        Meta(description="answer getCurrentTime ourselves; false = as ThingsBoard"),
    ] = True
    webhook_url: Annotated[
        str,
        Meta(
            pattern="^(https?://[^/].*)?$",
            description="http or https address that devices' calls are POSTed to and whose answer "
            "they get; empty = none, they wait at /api/rpc/calls",
        ),
    ] = ""
    webhook_timeout_ms: Annotated[
        int, Meta(ge=100, le=600_000, description="ms to wait for the webhook's whole answer")
    ] = 10_000
    kept_ms: Annotated[
        int,
        Meta(ge=1_000, description="ms after which a finished persistent call is deleted"),
    ] = limits.RPC_KEPT_MS


class State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a device counts as active (MQTT spec 8.5)."""

    default_inactivity_timeout_in_sec: Annotated[
        int,
        Meta(
            ge=1,
            le=31_536_000,
            description="s without activity after which a device is inactive, unless its server "
            "attribute inactivityTimeout (ms) says otherwise",
            extra={"alias": "DEFAULT_INACTIVITY_TIMEOUT"},
        ),
    ] = 600
    default_state_check_interval_in_sec: Annotated[
        int,
        Meta(
            ge=1,
            le=3_600,
            description="s between two looks at which devices have become inactive",
            extra={"alias": "DEFAULT_STATE_CHECK_INTERVAL"},
        ),
    ] = 60


class Claiming(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Devices that customers make their own (MQTT spec 6.1)."""

    allow_claiming_by_default: Annotated[
        bool,
        Meta(
            description="devices may be claimed without the server attribute claimingAllowed",
            extra={"alias": "SECURITY_CLAIM_ALLOW_CLAIMING_BY_DEFAULT"},
        ),
    ] = True
    duration: Annotated[
        int,
        Meta(
            ge=1,
            description="ms a device can be claimed after it told a secret without a time",
            extra={"alias": "SECURITY_CLAIM_DURATION"},
        ),
    ] = 86_400_000


class Security(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may have what."""

    claim: Claiming = Claiming()


class Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The workers' journals."""

    max_bytes: Annotated[
        int,
        Meta(
            ge=67_108_864,
            description="bytes on disk per worker's journal; beyond it telemetry is refused",
        ),
    ] = limits.JOURNAL_MAX_BYTES
    busy_after_ms: Annotated[
        int,
        Meta(
            ge=100,
            description="ms that telemetry may wait for the disk; beyond it new MQTT connections "
            "and new HTTP posts are refused as busy until the disk has caught up",
        ),
    ] = limits.JOURNAL_BUSY_MS


class Series(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sealed series that journals become."""

    head_bytes: Annotated[
        int,
        Meta(
            ge=1_048_576,
            le=1_073_741_824,
            description="memory of rows that are not sealed yet; a full head is sealed",
        ),
    ] = limits.HEAD_BYTES
    seal_interval_ms: Annotated[
        int,
        Meta(ge=1_000, description="ms after which rows are sealed even if the head is not full"),
    ] = limits.SEAL_INTERVAL_MS
    retention_ms: Annotated[
        int,
        Meta(ge=0, description="ms after their arrival that rows are kept; 0 = for ever"),
    ] = 0
    retention: Annotated[
        dict[str, Annotated[int, Meta(ge=0)]],
        Meta(
            description="the same for devices of some profiles, by profile name: "
            '`{"name" = ms}`, in the environment as JSON; at most '
            f"{limits.RETENTION_CLASSES} different times with `retention_ms`",
        ),
    ] = {}
    max_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="bytes of sealed chunks kept, the oldest are dropped first; 0 = no limit",
        ),
    ] = 0
    join_runs: Annotated[
        int,
        Meta(
            ge=2,
            le=1_024,
            description="sealed runs whose small chunks lie side by side before they are joined",
        ),
    ] = limits.JOIN_RUNS

    def retention_classes(self) -> list[int | None]:
        """Times to keep rows that differ, ms; first the default one, which is None."""
        others = {ms for ms in self.retention.values() if ms != self.retention_ms}
        return [None, *sorted(others)]

    def retention_class(self, profile: str) -> int:
        """Place of a profile's time in `retention_classes`."""
        ms = self.retention.get(profile, self.retention_ms)
        return 0 if ms == self.retention_ms else self.retention_classes().index(ms)


class Disk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Room of the data directory (promises 6)."""

    budget_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="bytes the data directory may take, beyond it the oldest sealed rows are "
            "dropped; 0 = the whole file system but 10 % of it, at most 1 GiB",
        ),
    ] = 0
    reserve_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="kept free for deletes and shutdown on a full disk; at most 5 % of it",
        ),
    ] = limits.DISK_RESERVE_BYTES


class Admin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The management API on the HTTP port (REST spec 2)."""

    networks: Annotated[
        str,
        Meta(
            description="networks whose addresses may use it, separated by commas, such as "
            "`127.0.0.0/8,10.1.0.0/16`; empty = all. A login is needed in any case"
        ),
    ] = ""
    demo_accounts: Annotated[
        bool,
        Meta(
            description="make and accept accounts whose passwords everybody knows: "
            "tenant@thingsboard.org/tenant, sysadmin@thingsboard.org/sysadmin",
            extra={"flag": "--demo"},
        ),
    ] = False

    def allowed_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """`networks` parsed; ConfigError where one is none."""
        texts = [text.strip() for text in self.networks.split(",") if text.strip()]
        try:
            return tuple(ip_network(text) for text in texts)
        except ValueError as error:
            raise ConfigError(f"admin.networks = {self.networks!r}: {error}") from error


class Ota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """OTA packages (REST spec 9)."""

    max_upload_bytes: Annotated[
        int,
        Meta(
            ge=1_024,
            le=2_147_483_647,
            description="bytes of a request that uploads a package; longer ones are answered 413",
        ),
    ] = limits.REST_PACKAGE_BYTES


class OtaQueue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How fast devices are told of an update (REST spec 9)."""

    pack_interval_ms: Annotated[
        int,
        Meta(
            ge=10,
            le=86_400_000,
            description="ms in which at most `pack_size` devices are told of an update",
            extra={"alias": "TB_QUEUE_CORE_OTA_PACK_INTERVAL_MS"},
        ),
    ] = 60_000
    pack_size: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="devices told of an update in one interval",
            extra={"alias": "TB_QUEUE_CORE_OTA_PACK_SIZE"},
        ),
    ] = 100


class QueueCore(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """ThingsBoard's name for the part that is not about devices' messages."""

    ota: OtaQueue = OtaQueue()


class TransportApi(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests of devices that only the controller answers."""

    max_requests_timeout: Annotated[
        int,
        Meta(
            ge=100,
            le=600_000,
            description="ms that a device's request waits for the controller before it fails; "
            "credentials are waited for so long too, but at most 5 s",
            extra={"alias": "TB_QUEUE_TRANSPORT_MAX_REQUEST_TIMEOUT"},
        ),
    ] = limits.REQUEST_TIMEOUT_MS


class Queue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Work that is done bit by bit, and what is waited for."""

    transport_api: TransportApi = TransportApi()
    core: QueueCore = QueueCore()


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is written to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="least severe line written: debug, info, warning or error"),
    ] = "info"
    format: Annotated[
        Literal["text", "json"], Meta(description="text for people, json for collectors")
    ] = "text"
