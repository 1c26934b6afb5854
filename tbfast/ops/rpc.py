"""Calls of the server by a device, once for every protocol (MQTT spec 5.2, HTTP spec 3.7)."""

from tbfast.errors import PeerError
from tbfast.model.operations import CallServer, Reply
from tbfast.ops.payload import Payload, members, text_of


def call(payload: Payload, *, params_required: bool = False) -> CallServer:
    """{"method":"name","params":...}; PeerError (0x99) if it is refused."""
    found = members(payload)
    if params_required and "params" not in found:
        raise PeerError("the request has no params", code=0x99)
    method = text_of(found.get("method"))
    if method is None:
        raise PeerError("the request names no method", code=0x99)
    return CallServer(method, found.get("params", b"null"))


def built_in(operation: CallServer, now_ms: int) -> Reply | None:
    """What every node answers by itself, whoever is away; None for other methods."""
    return Reply(b"%d" % now_ms) if operation.method == "getCurrentTime" else None
