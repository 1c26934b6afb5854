"""Requests for attributes, once for every protocol (MQTT spec 4.2, HTTP spec 3.3)."""

import msgspec

from tbfast.codec import tbproto
from tbfast.errors import PeerError
from tbfast.model.operations import Keys, ReadAttributes
from tbfast.ops.payload import Payload, members, text_of


def request(payload: Payload) -> ReadAttributes:
    """{"clientKeys":"a,b","sharedKeys":"c"}; PeerError (0x99) if it is refused."""
    found = members(payload)
    return of_lists(*(_list(found.get(name)) for name in ("clientKeys", "sharedKeys")))


def protobuf_request(payload: Payload) -> ReadAttributes:
    """The same as an AttributesRequest of MQTT spec 7.4; an empty list is not given."""
    found = tbproto.decode("AttributesRequest", payload)
    return of_lists(found["clientKeys"], found["sharedKeys"])


def of_lists(client: str | None, shared: str | None) -> ReadAttributes:
    """The request for two comma-separated lists; None = not given.

    A list with nothing in it counts as not given; neither given = all of both scopes.
    """
    client_keys, shared_keys = _names(client), _names(shared)
    if not client_keys and not shared_keys:
        return ReadAttributes((), ())
    return ReadAttributes(client_keys or None, shared_keys or None)


def _list(value: bytes | None) -> str | None:
    if value is None:
        return None
    if value == b"null":
        raise PeerError("a key list must be a text", code=0x99)
    if value[:1] == b"[":  # one element is taken as the element, as ThingsBoard's parser does
        elements = msgspec.json.decode(value, type=list[msgspec.Raw])
        if len(elements) != 1:
            raise PeerError("a key list must be a text", code=0x99)
        value = bytes(elements[0])
    return text_of(value)


def _names(text: str | None) -> Keys:
    return tuple(name for name in (text or "").split(",") if name)
