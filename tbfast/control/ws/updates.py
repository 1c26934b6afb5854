"""What is sent to clients: values are strings, `[time, "value"]` by key (REST spec 14.4)."""

from collections.abc import Iterable
from typing import Final

import msgspec

INTERNAL: Final = 1
BAD_REQUEST: Final = 2
UNAUTHORIZED: Final = 3

Point = tuple[int, bytes]  # time, value as JSON text

GONE: Final[Point] = (0, b'""')  # a key that was deleted


class _Value(msgspec.Struct):
    ts: int
    value: msgspec.Raw


_series = msgspec.json.Decoder(dict[str, list[_Value]])


def points_of(text: bytes) -> dict[str, list[Point]]:
    """What a series reader answers, by key."""
    found = _series.decode(text)
    return {key: [(p.ts, bytes(p.value)) for p in points] for key, points in found.items()}


def json_string(value: bytes) -> bytes:
    """JSON text as the JSON string that holds it; strings and null stay."""
    if value[:1] == b'"' or value == b"null":
        return value
    if value[:1] in (b"{", b"["):
        return msgspec.json.encode(value.decode())
    return b'"%b"' % value


def update(cmd_id: int, values: Iterable[tuple[str, list[Point]]]) -> bytes:
    """Values by key, newest first."""
    data, latest = [], []
    for key, points in values:
        name = msgspec.json.encode(key)
        texts = (b"[%d,%b]" % (ts, json_string(value)) for ts, value in points)
        data.append(name + b":[" + b",".join(texts) + b"]")
        if points:
            latest.append(b"%b:%d" % (name, max(ts for ts, _ in points)))
    return (
        b'{"subscriptionId":%d,"errorCode":0,"errorMsg":null,"data":{%b},"latestValues":{%b}}'
        % (
            cmd_id,
            b",".join(data),
            b",".join(latest),
        )
    )


def failure(cmd_id: int, code: int, message: str) -> bytes:
    """The command is not served; the connection stays."""
    return msgspec.json.encode(
        {"subscriptionId": cmd_id, "errorCode": code, "errorMsg": message, "data": None}
    )
