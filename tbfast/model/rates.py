"""Rate limits of the transports: ThingsBoard's syntax, names and scopes (MQTT spec 8.1)."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from tbfast import limits
from tbfast.errors import PeerError, RateLimited

Buckets = tuple[tuple[int, int], ...]  # (tokens, seconds in which so many come), all must fit

TENANT: Final = 0
DEVICE: Final = 1
GATEWAY: Final = 2  # what is behind a gateway, all together
GATEWAY_DEVICE: Final = 3  # a gateway's own messages
_SCOPES: Final = ("Tenant", "Device", "Gateway", "GatewayDevice")
_KINDS: Final = ("Msg", "TelemetryMsg", "TelemetryDataPoints")
_POINTS: Final = 2
_KIND_WORDS: Final = ("messages", "telemetryMessages", "telemetryDataPoints")

# In the order of `RateLimits.all`: three kinds of each scope.
NAMES: Final = tuple(f"transport{scope}{kind}RateLimit" for scope in _SCOPES for kind in _KINDS)

_BUCKET: Final = re.compile(r"([1-9][0-9]{0,9}):([1-9][0-9]{0,9})", re.ASCII)
_MAX: Final = (1 << 31) - 1
_NS_PER_S: Final = 1_000_000_000


def parse_limit(text: str) -> Buckets:
    """`capacity:seconds[,capacity:seconds...]`; empty = no limit.

    PeerError says what is wrong with anything else.
    """
    if not text:
        return ()
    buckets = tuple(_parse_bucket(part) for part in text.split(","))
    if len(buckets) > limits.RATE_BUCKETS:
        raise PeerError(f"more than {limits.RATE_BUCKETS} pairs in one limit")
    if len({seconds for _, seconds in buckets}) < len(buckets):
        raise PeerError("two pairs have the same number of seconds")
    return buckets


def _parse_bucket(text: str) -> tuple[int, int]:
    found = _BUCKET.fullmatch(text)
    if found is None:
        raise PeerError(
            f"{text[:64]!r} is not capacity:seconds with two positive whole numbers, as in 1000:1"
        )
    capacity, seconds = map(int, found.groups())
    if capacity > _MAX or seconds > _MAX:
        raise PeerError(f"{text!r} has a number above {_MAX}")
    return capacity, seconds


def limit_text(buckets: Buckets) -> str | None:
    """The text that `parse_limit` reads; None = no limit."""
    return ",".join(f"{capacity}:{seconds}" for capacity, seconds in buckets) or None


class RateLimits(msgspec.Struct, frozen=True):
    """All limits of a node, in the order of NAMES."""

    all: tuple[Buckets, ...] = ((),) * len(NAMES)

    def buckets(self, scope: int, kind: int) -> Buckets:
        """One of them."""
        return self.all[scope * len(_KINDS) + kind]

    def reported(self, scope: int) -> dict[str, str | None]:
        """What a session is told of one scope (MQTT spec 5.2)."""
        return {
            word: limit_text(self.buckets(scope, kind)) for kind, word in enumerate(_KIND_WORDS)
        }


def rate_limits(configuration: Mapping[str, Any]) -> RateLimits:
    """The limits in a tenant profile's configuration; PeerError names the member that is wrong."""
    return RateLimits(tuple(_members(configuration)))


def _members(configuration: Mapping[str, Any]) -> Iterable[Buckets]:
    for name in NAMES:
        text = configuration.get(name)
        if text is not None and not isinstance(text, str):
            raise PeerError(f"{name} should be a text, or null for no limit")
        try:
            yield parse_limit(text or "")
        except PeerError as error:
            raise PeerError(f"{name}: {error}") from error


def over_limit(
    scope: int, kind: int, buckets: Buckets, tokens: int, wait_ns: int | None
) -> RateLimited:
    """A message over a limit: the limit, its value and when to try again (deviation X3)."""
    number = scope * len(_KINDS) + kind
    limit = f"{NAMES[number]} {limit_text(buckets)}"
    if wait_ns is None:
        what = f"{tokens} data points" if kind == _POINTS else "one message"
        return RateLimited(f"{limit} never allows {what} at once", limit=number, retry_s=None)
    retry_s = max(1, -(-wait_ns // _NS_PER_S))
    return RateLimited(
        f"{limit} is used up; try again in {retry_s} s", limit=number, retry_s=retry_s
    )
