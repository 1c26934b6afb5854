"""Which topic means what (MQTT spec 2.1) and which filters a device may subscribe (2.4)."""

from enum import Enum, auto

from tbfast import limits


class Route(Enum):
    """What a PUBLISH of a normal device session is about."""

    TELEMETRY = auto()
    TELEMETRY_PROTOBUF = auto()  # refused while the profile has no schema (2.2)
    GATEWAY = auto()
    UNSUPPORTED = auto()  # a topic of the device API that this version does not serve
    UNKNOWN = auto()


TELEMETRY = frozenset({"v1/devices/me/telemetry", "v2/t", "v2/t/j"})
_UNSUPPORTED_EXACT = frozenset(
    {"v1/devices/me/attributes", "v1/devices/me/claim", "v2/a", "v2/a/j", "v2/a/p"}
)
_UNSUPPORTED_PREFIXES = (
    "v1/devices/me/attributes/request/",
    "v1/devices/me/rpc/",
    "v2/a/req/",
    "v2/r/",
    "v2/fw/request/",
    "v2/sw/request/",
)

FILTERS = frozenset(
    {
        "v1/devices/me/attributes",
        "v2/a",
        "v2/a/j",
        "v2/a/p",
        "v1/devices/me/rpc/request/+",
        "v2/r/req/+",
        "v2/r/req/j/+",
        "v2/r/req/p/+",
        "v1/devices/me/attributes/response/+",
        "v2/a/res/+",
        "v2/a/res/j/+",
        "v2/a/res/p/+",
        "v1/devices/me/rpc/response/+",
        "v2/r/res/+",
        "v2/r/res/j/+",
        "v2/r/res/p/+",
        "v2/fw/response/+/chunk/+",
        "v2/fw/error",
        "v2/sw/response/+/chunk/+",
        "v2/sw/error",
        "v1/gateway/attributes",
        "v1/gateway/rpc",
        "v1/gateway/attributes/response",
    }
)


def route(topic: str) -> Route:
    """First hit wins, in ThingsBoard's order."""
    if topic.startswith("v1/gateway"):
        return Route.GATEWAY
    if topic in TELEMETRY:
        return Route.TELEMETRY
    if topic == "v2/t/p":
        return Route.TELEMETRY_PROTOBUF
    if len(topic) > limits.MQTT_TOPIC_BYTES or topic.count("/") >= limits.MQTT_TOPIC_LEVELS:
        return Route.UNKNOWN
    if topic in _UNSUPPORTED_EXACT or topic.startswith(_UNSUPPORTED_PREFIXES):
        return Route.UNSUPPORTED
    return Route.UNKNOWN
