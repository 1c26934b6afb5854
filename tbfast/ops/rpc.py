"""Calls of the server by a device, once for every protocol (MQTT spec 5.2, HTTP spec 3.7)."""

from tbfast.errors import PeerError
from tbfast.model.operations import CallServer
from tbfast.ops.payload import Payload, members, text_of


def call(payload: Payload) -> CallServer:
    """{"method":"name","params":...}; PeerError (0x99) if it is refused."""
    found = members(payload)
    method = text_of(found.get("method"))
    if method is None:
        raise PeerError("the request names no method", code=0x99)
    return CallServer(method, found.get("params", b"null"))
