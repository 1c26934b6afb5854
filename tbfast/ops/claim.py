"""Requests to be claimed, once for every protocol (MQTT spec 6.1, HTTP spec 3.8)."""

from tbfast.codec import tbproto
from tbfast.errors import PeerError
from tbfast.model.operations import Claim
from tbfast.ops.payload import Payload, integer_of, members, text_of


def request(payload: Payload) -> Claim:
    """{"secretKey":"value","durationMs":60000}, both optional; an empty payload is {}."""
    if not payload:
        return Claim()
    found = members(payload)
    for name in ("secretKey", "durationMs"):
        if found.get(name) == b"null":
            raise PeerError("a member is null", code=0x99)
    return Claim(text_of(found.get("secretKey")) or "", integer_of(found.get("durationMs")) or 0)


def protobuf_request(payload: Payload) -> Claim:
    """The same as a ClaimDevice of MQTT spec 7.4."""
    found = tbproto.decode("ClaimDevice", payload)
    return Claim(found["secretKey"], int(found["durationMs"]))
