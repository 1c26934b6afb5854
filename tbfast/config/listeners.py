"""Settings of what devices and people connect to: listeners, TLS, limits of payloads."""

import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from tbfast import limits

ALL_ADDRESSES: Final = "0.0.0.0"  # a device server listens everywhere, as ThingsBoard

Port = Annotated[int, Meta(ge=0, le=65_535)]


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
    ] = ALL_ADDRESSES
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
    ] = ALL_ADDRESSES
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
    ] = ALL_ADDRESSES
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
    ] = ALL_ADDRESSES
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
