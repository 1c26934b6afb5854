"""The configuration tree and where each value came from.

Sources, weakest first: default, TOML file, ThingsBoard's own environment name, ``TBFAST_*``
environment, flag. An unknown key is an error that names the nearest known one. A setting that
ThingsBoard has keeps its path and unit; our own carry the unit in the name. The documented table
and ``tbfast config`` are generated from this module.
"""

import argparse
import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from tbfast import limits
from tbfast.errors import LocalError
from tbfast.model.rpc import Strategy

ENV_PREFIX: Final = "TBFAST_"
CONFIG_ENV: Final = "TBFAST_CONFIG"
PASSWORD_ENV: Final = "TBFAST_PASSWORD"
API_KEY_ENV: Final = "TBFAST_API_KEY"
# Read by the command line, by the build and by the test suite; never settings.
_NOT_SETTINGS: Final = {
    CONFIG_ENV,
    PASSWORD_ENV,
    API_KEY_ENV,
    "TBFAST_SANITIZE",
    "TBFAST_EXT",
    "TBFAST_WERROR",
}
_TEST_PREFIX: Final = "TBFAST_TEST_"
_ALL_ADDRESSES: Final = "0.0.0.0"  # a device server listens everywhere, as ThingsBoard

Port = Annotated[int, Meta(ge=0, le=65_535)]


class ConfigError(LocalError):
    """A setting is unknown or has a value we cannot use; the message names it and its source."""


class Pem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Certificate and key of a TLS listener (MQTT spec 9)."""

    cert_file: Annotated[
        str,
        Meta(
            description="PEM file with the server's certificate and its chain",
            extra={"alias": "MQTT_SSL_PEM_CERT"},
        ),
    ] = "mqttserver.pem"
    key_file: Annotated[
        str,
        Meta(
            description="PEM file with its key; if there is none, the key is looked for in "
            "cert_file",
            extra={"alias": "MQTT_SSL_PEM_KEY"},
        ),
    ] = "mqttserver_key.pem"
    key_password: Annotated[
        str,
        Meta(
            description="password of an encrypted key",
            extra={"alias": "MQTT_SSL_PEM_KEY_PASSWORD", "secret": "yes"},
        ),
    ] = ""


class TlsCredentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the server's certificate comes from."""

    type: Annotated[
        Literal["PEM", "KEYSTORE"],
        Meta(
            description="PEM; Java key stores are not read, convert them with `openssl pkcs12`",
            extra={"alias": "MQTT_SSL_CREDENTIALS_TYPE"},
        ),
    ] = "PEM"
    pem: Pem = Pem()


class HttpPem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same of HTTP over TLS (HTTP spec 1)."""

    cert_file: Annotated[
        str,
        Meta(
            description="PEM file with the server's certificate and its chain",
            extra={"alias": "SSL_PEM_CERT"},
        ),
    ] = "server.pem"
    key_file: Annotated[
        str,
        Meta(
            description="PEM file with its key; if there is none, the key is looked for in "
            "cert_file",
            extra={"alias": "SSL_PEM_KEY"},
        ),
    ] = "server_key.pem"
    key_password: Annotated[
        str,
        Meta(
            description="password of an encrypted key",
            extra={"alias": "SSL_PEM_KEY_PASSWORD", "secret": "yes"},
        ),
    ] = ""


class HttpTlsCredentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where its certificate comes from."""

    type: Annotated[
        Literal["PEM", "KEYSTORE"],
        Meta(
            description="PEM; Java key stores are not read, convert them with `openssl pkcs12`",
            extra={"alias": "SSL_CREDENTIALS_TYPE"},
        ),
    ] = "PEM"
    pem: HttpPem = HttpPem()


class HttpTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """HTTP over TLS."""

    credentials: HttpTlsCredentials = HttpTlsCredentials()


class MqttTls(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """MQTT over TLS beside the plain listener (MQTT spec 9)."""

    enabled: Annotated[
        bool, Meta(description="listen for TLS as well", extra={"alias": "MQTT_SSL_ENABLED"})
    ] = False
    bind_port: Annotated[
        Port,
        Meta(
            description="TCP port for MQTT over TLS; 0 picks a free one",
            extra={"alias": "MQTT_SSL_BIND_PORT"},
        ),
    ] = 8883
    bind_address: Annotated[
        str,
        Meta(
            min_length=1,
            description="address it listens on; `host` if not set",
            extra={"alias": "MQTT_SSL_BIND_ADDRESS", "follows": "host"},
        ),
    ] = _ALL_ADDRESSES
    credentials: TlsCredentials = TlsCredentials()
    skip_validity_check_for_client_cert: Annotated[
        bool,
        Meta(
            description="let in client certificates that are expired or not valid yet",
            extra={"alias": "MQTT_SSL_SKIP_VALIDITY_CHECK_FOR_CLIENT_CERT"},
        ),
    ] = False


class Mqtt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """MQTT listener and sessions (MQTT spec 1.1)."""

    enabled: Annotated[
        bool, Meta(description="serve devices over MQTT", extra={"alias": "MQTT_ENABLED"})
    ] = True
    bind_port: Annotated[
        Port,
        Meta(
            description="TCP port for MQTT; 0 picks a free one",
            extra={"alias": "MQTT_BIND_PORT", "flag": "--mqtt-port"},
        ),
    ] = 1883
    bind_address: Annotated[
        str,
        Meta(
            min_length=1,
            description="address MQTT listens on; `host` if not set",
            extra={"alias": "MQTT_BIND_ADDRESS", "follows": "host"},
        ),
    ] = _ALL_ADDRESSES
    max_payload_size: Annotated[
        int,
        Meta(
            ge=128,
            le=16_777_216,
            description="bytes of a whole packet after its length field; longer ones end the "
            "connection",
            extra={"alias": "NETTY_MAX_PAYLOAD_SIZE"},
        ),
    ] = limits.MQTT_MAX_REMAINING_BYTES
    keep_alive_factor: Annotated[
        float,
        Meta(
            ge=0.0,
            le=100.0,
            description="close after this many keep-alive intervals of silence; 0 = never, "
            "as ThingsBoard; 1.5 = the MQTT standard",
        ),
    ] = 0.0
    disconnect_timeout: Annotated[
        int,
        Meta(
            ge=0,
            le=60_000,
            description="ms to wait for outstanding acknowledgements before closing",
            extra={"alias": "MQTT_DISCONNECT_TIMEOUT"},
        ),
    ] = limits.MQTT_CLOSE_TIMEOUT_MS
    timeout: Annotated[
        int,
        Meta(
            ge=100,
            le=600_000,
            description="ms to wait for the PUBACK of a message to a device",
            extra={"alias": "MQTT_TIMEOUT"},
        ),
    ] = limits.MQTT_ACK_TIMEOUT_MS
    msg_queue_size_per_device_limit: Annotated[
        int,
        Meta(
            ge=1,
            le=10_000,
            description="packets kept until a CONNECT is accepted, and requests of a session "
            "that wait; more end the connection",
            extra={"alias": "MQTT_MSG_QUEUE_SIZE_PER_DEVICE_LIMIT"},
        ),
    ] = limits.MQTT_QUEUE
    so_keep_alive: Annotated[
        bool,
        Meta(
            description="TCP looks after silent connections, at the system's intervals",
            extra={"alias": "NETTY_SO_KEEPALIVE"},
        ),
    ] = False
    proxy_enabled: Annotated[
        bool,
        Meta(
            description="every connection, TLS or not, begins with a PROXY protocol header, "
            "version 1 or 2",
            extra={"alias": "MQTT_PROXY_PROTOCOL_ENABLED"},
        ),
    ] = False
    ssl: MqttTls = MqttTls()


class Certificates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Certificate files of every TLS listener."""

    certificate_reload_enabled: Annotated[
        bool,
        Meta(
            description="look for changed certificate files; SIGHUP loads them in any case",
            extra={"alias": "TB_TRANSPORT_SSL_CERTIFICATE_RELOAD_ENABLED"},
        ),
    ] = True
    certificate_reload_check_interval_seconds: Annotated[
        int,
        Meta(
            ge=1,
            description="seconds between two looks",
            extra={"alias": "TB_TRANSPORT_SSL_CERTIFICATE_RELOAD_CHECK_INTERVAL_SECONDS"},
        ),
    ] = 60


class RateLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Addresses that present wrong credentials over MQTT (MQTT spec 8.4)."""

    ip_limits_enabled: Annotated[
        bool,
        Meta(
            description="block addresses with too many wrong credentials",
            extra={"alias": "TB_TRANSPORT_IP_RATE_LIMITS_ENABLED"},
        ),
    ] = False
    max_wrong_credentials_per_ip: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000,
            description="wrong credentials in a row after which an address is blocked",
            extra={"alias": "TB_TRANSPORT_MAX_WRONG_CREDENTIALS_PER_IP"},
        ),
    ] = 10
    ip_block_timeout: Annotated[
        int,
        Meta(
            ge=1,
            description="ms from the last of them to the end of the block",
            extra={"alias": "TB_TRANSPORT_IP_BLOCK_TIMEOUT"},
        ),
    ] = 60_000


class HttpCompression(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Answers of the management API for clients that take gzip."""

    enabled: Annotated[
        bool,
        Meta(
            description="compress answers of the management API for clients that take gzip: less "
            "traffic, more CPU time; downloads and what devices get are sent as they are",
            extra={"alias": "HTTP_COMPRESSION_ENABLED"},
        ),
    ] = False


class Http(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """HTTP listeners (HTTP spec 1, 6)."""

    enabled: Annotated[
        bool,
        Meta(
            description="serve devices over HTTP; the management API is served in any case",
            extra={"alias": "HTTP_ENABLED"},
        ),
    ] = True
    tls_bind_port: Annotated[
        int,
        Meta(
            ge=-1,
            le=65_535,
            description="TCP port for HTTPS beside the plain one; -1 = none, 0 picks a free one",
        ),
    ] = -1
    tls_bind_address: Annotated[
        str,
        Meta(
            min_length=1,
            description="address HTTPS listens on; `host` if not set",
            extra={"follows": "host"},
        ),
    ] = _ALL_ADDRESSES
    ssl: HttpTls = HttpTls()

    bind_port: Annotated[
        Port,
        Meta(
            description="TCP port for HTTP; 0 picks a free one",
            extra={"alias": "HTTP_BIND_PORT", "flag": "--http-port"},
        ),
    ] = 8080
    bind_address: Annotated[
        str,
        Meta(
            min_length=1,
            description="address HTTP listens on; `host` if not set",
            extra={"alias": "HTTP_BIND_ADDRESS", "follows": "host"},
        ),
    ] = _ALL_ADDRESSES
    max_payload_size: Annotated[
        str,
        Meta(
            pattern=r"^[^;=]+=[0-9]{1,9}(;[^;=]+=[0-9]{1,9})*$",
            description="bytes of a request body by path, the first pattern that matches "
            "decides; `*` is one segment, `**` any number",
            extra={"alias": "HTTP_TRANSPORT_MAX_PAYLOAD_SIZE_LIMIT_CONFIGURATION"},
        ),
    ] = f"/api/v1/*/rpc/**={limits.HTTP_BODY_BYTES};/api/v1/**={limits.HTTP_DEVICE_BODY_BYTES}"
    request_timeout: Annotated[
        int,
        Meta(
            ge=100,
            le=3_600_000,
            description="ms a long poll waits that names no time",
            extra={"alias": "HTTP_REQUEST_TIMEOUT"},
        ),
    ] = limits.HTTP_POLL_TIMEOUT_MS
    max_request_timeout: Annotated[
        int,
        Meta(
            ge=100,
            le=3_600_000,
            description="ms a long poll waits at most, whatever it names",
            extra={"alias": "HTTP_MAX_REQUEST_TIMEOUT"},
        ),
    ] = limits.HTTP_POLL_TIMEOUT_MAX_MS
    allowed_origins: Annotated[
        str,
        Meta(
            description="origins whose web pages may use the APIs from a browser, separated by "
            "commas, such as `https://ui.example,https://*.example.org`; `*` = all, empty = none "
            "but the node's own"
        ),
    ] = "*"
    compression: HttpCompression = HttpCompression()

    def origins(self) -> re.Pattern[str] | None:
        """What the whole of an allowed origin looks like; None = any."""
        patterns = [text.strip() for text in self.allowed_origins.split(",") if text.strip()]
        if "*" in patterns:
            return None
        one_of = "|".join(re.escape(text).replace(r"\*", "[^/]*") for text in patterns)
        return re.compile(one_of or "(?!)")


class Json(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How JSON telemetry becomes typed values (MQTT spec 3.3)."""

    type_cast_enabled: Annotated[
        bool,
        Meta(
            description='store the string "42" as the number 42, as ThingsBoard',
            extra={"alias": "JSON_TYPE_CAST_ENABLED"},
        ),
    ] = True
    max_string_value_length: Annotated[
        int,
        Meta(
            ge=0,
            description="longest string value in characters; 0 = no limit but the packet's",
            extra={"alias": "JSON_MAX_STRING_VALUE_LENGTH"},
        ),
    ] = 0


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


class Actors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ThingsBoard keeps under this name."""

    rpc: ActorsRpc = ActorsRpc()


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


class Queue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Work that is done bit by bit."""

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
    ] = _ALL_ADDRESSES
    mqtt: Mqtt = Mqtt()
    http: Http = Http()
    json: Json = Json()
    sessions: Sessions = Sessions()
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


class Setting(msgspec.Struct, frozen=True):
    """One leaf of the tree, as documented."""

    path: str
    type: Any
    default: Any
    description: str
    env: str
    alias: str | None
    flag: str | None
    follows: str | None
    secret: bool


class Loaded(msgspec.Struct, frozen=True):
    """The configuration and, per path, a few words on where its value came from."""

    config: Config
    origins: dict[str, str]


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _leaves(struct: type[msgspec.Struct], prefix: str) -> list[Setting]:
    hints = get_type_hints(struct, include_extras=True)
    found: list[Setting] = []
    for field in msgspec.structs.fields(struct):
        path = prefix + field.name
        hint = hints[field.name]
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            found += _leaves(hint, path + ".")
            continue
        metas = [meta for meta in get_args(hint)[1:] if isinstance(meta, Meta)]
        extra: dict[str, str] = {}
        for meta in metas:
            extra |= meta.extra or {}
        found.append(
            Setting(
                path=path,
                type=hint,
                default=_default(field),
                description=next(meta.description for meta in metas if meta.description),
                env=ENV_PREFIX + path.upper().replace(".", "__"),
                alias=extra.get("alias"),
                flag=extra.get("flag"),
                follows=extra.get("follows"),
                secret="secret" in extra,
            )
        )
    return found


SETTINGS: Final[dict[str, Setting]] = {s.path: s for s in _leaves(Config, "")}


def value_of(config: Config, path: str) -> Any:
    """The value at a dotted path of the tree."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Add ``--config`` and a flag for every setting that has one; all default to "not given"."""
    parser.add_argument(
        "--config", metavar="FILE", help=f"TOML file with settings (environment: {CONFIG_ENV})"
    )
    for setting in SETTINGS.values():
        if setting.flag is None:
            continue
        if isinstance(setting.default, bool):
            parser.add_argument(
                setting.flag,
                dest=setting.path,
                action="store_true",
                default=None,
                help=setting.description,
            )
            continue
        parser.add_argument(
            setting.flag,
            dest=setting.path,
            metavar=_metavar(setting.type),
            help=f"{setting.description} (default: {setting.default})",
        )


def load(
    args: argparse.Namespace | None = None, environ: Mapping[str, str] | None = None
) -> Loaded:
    """Merge all sources; raises ConfigError for an unknown key or an unusable value.

    ``args`` comes from a parser prepared by `add_config_flags`; missing attributes count as
    "not given". ``environ`` is the process environment unless given.
    """
    env = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origins = dict.fromkeys(SETTINGS, "default")

    file = getattr(args, "config", None) or env.get(CONFIG_ENV)
    if file:
        for path, value in _read_file(Path(file)).items():
            values[path] = _converted(SETTINGS[path], value, f"{path} in {file}", strict=True)
            origins[path] = f"file {file}"
    for name, setting in _environment(env):
        values[setting.path] = _converted(setting, env[name], name, strict=False)
        origins[setting.path] = f"environment {name}"
    for setting in SETTINGS.values():
        given = getattr(args, setting.path, None)
        if setting.flag is not None and given is not None:
            values[setting.path] = _converted(setting, given, setting.flag, strict=False)
            origins[setting.path] = f"flag {setting.flag}"
    for setting in SETTINGS.values():
        if setting.follows in values and setting.path not in values:
            values[setting.path] = values[setting.follows]
            origins[setting.path] = f"{setting.follows}, {origins[setting.follows]}"
    config = msgspec.convert(_nested(values), Config)
    if len(config.series.retention_classes()) > limits.RETENTION_CLASSES:
        raise ConfigError(
            f"series.retention and series.retention_ms name more than {limits.RETENTION_CLASSES} "
            f"different times ({origins['series.retention']}); let some profiles share one"
        )
    config.admin.allowed_networks()  # a mistake in it is told at the start
    return Loaded(config, origins)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    return _flat(tree, "", str(path))


def _flat(tree: dict[str, Any], prefix: str, source: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        path = prefix + name
        if path in SETTINGS:
            found[path] = value
        elif isinstance(value, dict) and any(p.startswith(path + ".") for p in SETTINGS):
            found |= _flat(value, path + ".", source)
        else:
            raise _unknown(path, SETTINGS, source)
    return found


def _environment(env: Mapping[str, str]) -> list[tuple[str, Setting]]:
    """Variables that name a setting, ThingsBoard's names first so that ours overwrite them."""
    ours = {s.env: s for s in SETTINGS.values()}
    theirs = {s.alias: s for s in SETTINGS.values() if s.alias}
    for name in env:
        if not name.startswith(ENV_PREFIX) or name.startswith(_TEST_PREFIX):
            continue
        if name not in ours and name not in _NOT_SETTINGS:
            raise _unknown(name, ours, "the environment")
    return [
        (name, setting)
        for table in (theirs, ours)
        for name, setting in table.items()
        if name in env
    ]


def _unknown(name: str, known: Mapping[str, Setting], source: str) -> ConfigError:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    return ConfigError(f"unknown setting {name} in {source}; did you mean {nearest}?")


def _converted(setting: Setting, value: Any, source: str, *, strict: bool) -> Any:
    try:
        if isinstance(setting.default, dict) and isinstance(value, str):
            return msgspec.json.decode(value, type=setting.type)
        return msgspec.convert(value, setting.type, strict=strict)
    except msgspec.DecodeError as error:  # also what a ValidationError is
        shown = "" if setting.secret else f" = {value!r}"
        raise ConfigError(f"{source}{shown}: {error} ({setting.description})") from error


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *parents, name = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def _metavar(hint: Any) -> str:
    bare = hint
    while get_origin(bare) is Annotated:
        bare = get_args(bare)[0]
    if get_origin(bare) is Literal:
        return "|".join(get_args(bare))
    return "N" if bare is int else "TEXT"
