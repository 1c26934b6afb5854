"""Which topic means what (MQTT spec 2.1) and which filters a device may subscribe (2.4)."""

import re
from enum import Enum, auto
from typing import Final, NamedTuple

from tbfast import limits


class Route(Enum):
    """What a PUBLISH of a normal device session is about."""

    TELEMETRY = auto()
    ATTRIBUTES = auto()
    ATTRIBUTES_REQUEST = auto()
    RPC_ANSWER = auto()
    RPC_REQUEST = auto()
    CLAIM = auto()
    GATEWAY = auto()
    FIRMWARE = auto()  # a chunk of it
    SOFTWARE = auto()
    UNKNOWN = auto()


class Family(Enum):
    """Naming scheme of topics; answers come in that of the request (2.3)."""

    V1 = "v1"
    V2 = "v2"
    V2_JSON = "v2/j"
    V2_PROTOBUF = "v2/p"


class Target(NamedTuple):
    """Route of a topic; `request` and `chunk` are numbers in it, as text."""

    route: Route
    family: Family = Family.V1
    request: str = ""
    chunk: str = ""


TELEMETRY: Final = frozenset({"v1/devices/me/telemetry", "v2/t", "v2/t/j"})

_EXACT: Final = {
    "v1/devices/me/telemetry": Target(Route.TELEMETRY),
    "v2/t": Target(Route.TELEMETRY, Family.V2),
    "v2/t/j": Target(Route.TELEMETRY, Family.V2_JSON),
    "v2/t/p": Target(Route.TELEMETRY, Family.V2_PROTOBUF),
    "v1/devices/me/attributes": Target(Route.ATTRIBUTES),
    "v2/a": Target(Route.ATTRIBUTES, Family.V2),
    "v2/a/j": Target(Route.ATTRIBUTES, Family.V2_JSON),
    "v2/a/p": Target(Route.ATTRIBUTES, Family.V2_PROTOBUF),
    "v1/devices/me/claim": Target(Route.CLAIM),
}

# The longer prefix of a family comes first.
_PREFIXES: Final = (
    ("v1/devices/me/attributes/request/", Route.ATTRIBUTES_REQUEST, Family.V1),
    ("v1/devices/me/rpc/response/", Route.RPC_ANSWER, Family.V1),
    ("v1/devices/me/rpc/request/", Route.RPC_REQUEST, Family.V1),
    ("v2/r/res/j/", Route.RPC_ANSWER, Family.V2_JSON),
    ("v2/r/res/p/", Route.RPC_ANSWER, Family.V2_PROTOBUF),
    ("v2/r/res/", Route.RPC_ANSWER, Family.V2),
    ("v2/r/req/j/", Route.RPC_REQUEST, Family.V2_JSON),
    ("v2/r/req/p/", Route.RPC_REQUEST, Family.V2_PROTOBUF),
    ("v2/r/req/", Route.RPC_REQUEST, Family.V2),
    ("v2/a/req/j/", Route.ATTRIBUTES_REQUEST, Family.V2_JSON),
    ("v2/a/req/p/", Route.ATTRIBUTES_REQUEST, Family.V2_PROTOBUF),
    ("v2/a/req/", Route.ATTRIBUTES_REQUEST, Family.V2),
)
# Anywhere in a topic, as ThingsBoard looks for them.
_CHUNKS: Final = (
    (re.compile(r"v2/fw/request/([0-9]+)/chunk/([0-9]+)"), Route.FIRMWARE),
    (re.compile(r"v2/sw/request/([0-9]+)/chunk/([0-9]+)"), Route.SOFTWARE),
)

# All that a client may use that came to be registered (6.2).
PROVISION_REQUEST: Final = "/provision/request"
PROVISION_RESPONSE: Final = "/provision/response"

# Subscriptions that register the device for something, and the family it then comes in.
PUSHES: Final = {
    "v1/devices/me/attributes": Family.V1,
    "v2/a": Family.V2,
    "v2/a/j": Family.V2_JSON,
    "v2/a/p": Family.V2_PROTOBUF,
}
CALLS: Final = {
    "v1/devices/me/rpc/request/+": Family.V1,
    "v2/r/req/+": Family.V2,
    "v2/r/req/j/+": Family.V2_JSON,
    "v2/r/req/p/+": Family.V2_PROTOBUF,
}

_REPLY_TOPICS: Final = {
    (Route.ATTRIBUTES_REQUEST, Family.V1): "v1/devices/me/attributes/response/",
    (Route.ATTRIBUTES_REQUEST, Family.V2): "v2/a/res/",
    (Route.ATTRIBUTES_REQUEST, Family.V2_JSON): "v2/a/res/j/",
    (Route.ATTRIBUTES_REQUEST, Family.V2_PROTOBUF): "v2/a/res/p/",
    (Route.RPC_REQUEST, Family.V1): "v1/devices/me/rpc/response/",
    (Route.RPC_REQUEST, Family.V2): "v2/r/res/",
    (Route.RPC_REQUEST, Family.V2_JSON): "v2/r/res/j/",
    (Route.RPC_REQUEST, Family.V2_PROTOBUF): "v2/r/res/p/",
}
_PUSH_TOPICS: Final = {family: topic for topic, family in PUSHES.items()}
_CALL_TOPICS: Final = {family: topic[:-1] for topic, family in CALLS.items()}

FILTERS: Final = (
    frozenset(PUSHES)
    | frozenset(CALLS)
    | {
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

_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,32}")


def route(topic: str) -> Target:
    """First hit wins, in ThingsBoard's order."""
    if topic.startswith("v1/gateway"):
        return Target(Route.GATEWAY)
    if (target := _EXACT.get(topic)) is not None:
        return target
    if len(topic) > limits.MQTT_TOPIC_BYTES or topic.count("/") >= limits.MQTT_TOPIC_LEVELS:
        return Target(Route.UNKNOWN)
    for prefix, kind, family in _PREFIXES:
        if topic.startswith(prefix):
            return Target(kind, family, topic[len(prefix) :])
    for pattern, kind in _CHUNKS:
        if (found := pattern.search(topic)) is not None:
            return Target(kind, Family.V2, *found.groups())
    return Target(Route.UNKNOWN)


def request_id(text: str) -> int | None:
    """The number at the end of a topic: signed 32-bit decimal; None if it is none (2.1)."""
    if not _NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if -(1 << 31) <= number < 1 << 31 else None


def reply_topic(route: Route, family: Family, request: int) -> str:
    """Where the answer to a request goes (2.3)."""
    return f"{_REPLY_TOPICS[route, family]}{request}"


def push_topic(family: Family) -> str:
    """Where changes of shared attributes go (2.3)."""
    return _PUSH_TOPICS[family]


def call_topic(family: Family, request: int) -> str:
    """Where a call of the server goes (2.3)."""
    return f"{_CALL_TOPICS[family]}{request}"


def matches(filter: str, topic: str) -> bool:
    """Whether a subscription covers a topic, by the rules of MQTT."""
    if "+" not in filter and "#" not in filter:
        return filter == topic
    wanted, levels = filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(
        w in ("+", level) for w, level in zip(wanted, levels, strict=True)
    )
