"""Calls of the server by a device, once for every protocol (MQTT spec 5.2, HTTP spec 3.7)."""

import re
from typing import Final

import msgspec

from tbfast.codec import tbproto
from tbfast.errors import PeerError
from tbfast.model.operations import CallServer, Reply
from tbfast.ops.payload import Payload, members, text_of

_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def call(payload: Payload, *, params_required: bool = False) -> CallServer:
    """{"method":"name","params":...}; PeerError (0x99) if it is refused."""
    found = members(payload)
    if params_required and "params" not in found:
        raise PeerError("the request has no params", code=0x99)
    method = text_of(found.get("method"))
    if method is None:
        raise PeerError("the request names no method", code=0x99)
    return CallServer(method, found.get("params", b"null"))


def protobuf_call(payload: Payload) -> CallServer:
    """The same as an RpcRequest of MQTT spec 7.4, whose params are JSON text, or base64."""
    found = tbproto.decode("RpcRequest", payload)
    text: str = found["params"]
    if not text:
        return CallServer(found["method"])
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        if not _BASE64.fullmatch(text):
            raise PeerError("params are neither JSON nor base64", code=0x99) from error
        return CallServer(found["method"], msgspec.json.encode(text))
    return CallServer(found["method"], text.encode())


def built_in(operation: CallServer, now_ms: int) -> Reply | None:
    """What every node answers by itself, whoever is away; None for other methods."""
    return Reply(b"%d" % now_ms) if operation.method == "getCurrentTime" else None
