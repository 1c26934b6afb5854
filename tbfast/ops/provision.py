"""Requests to be registered, once for every protocol (MQTT spec 6.2, HTTP spec 3.9)."""

from typing import Final

import msgspec

from tbfast.codec import tbproto
from tbfast.errors import PeerError
from tbfast.model.device import CredentialsType
from tbfast.model.operations import Provision
from tbfast.ops.payload import Payload, members, text_of

INCOMPLETE: Final = 0x83  # MQTT's code for a request that is none; a body that is no object: 0x99
_TEXTS: Final = {
    "deviceName": "device_name",
    "token": "token",
    "clientId": "client_id",
    "username": "user_name",
    "password": "password",
    "hash": "certificate",
}


def any_request(payload: Payload) -> tuple[Provision, bool]:
    """A request in either format, and whether it was Protobuf: what is no JSON object may be.

    PeerError as `request`.
    """
    try:
        return request(payload), False
    except PeerError as error:
        if error.code == INCOMPLETE:
            raise
    return _protobuf_request(payload), True


def _protobuf_request(payload: Payload) -> Provision:
    """The same as a ProvisionDeviceRequestMsg of MQTT spec 7.4; "" is not given."""
    found = tbproto.decode("ProvisionDeviceRequestMsg", payload)
    profile = found.get("provisionDeviceCredentialsMsg", {})
    given = found.get("credentialsDataProto", {})
    basic = given.get("validateBasicMqttCredRequestMsg", {})
    return Provision(
        key=profile.get("provisionDeviceKey", ""),
        secret=profile.get("provisionDeviceSecret", ""),
        credentials_type=_type(found["credentialsType"]),
        device_name=found["deviceName"],
        token=given.get("validateDeviceTokenRequestMsg", {}).get("token"),
        certificate=given.get("validateDeviceX509CertRequestMsg", {}).get("hash"),
        client_id=basic.get("clientId"),
        user_name=basic.get("userName"),
        password=basic.get("password"),
        gateway=found["gateway"],
    )


def request(payload: Payload) -> Provision:
    """The request of a JSON object; PeerError 0x99 for another payload, 0x83 for bad members."""
    found = members(payload)
    try:
        key = _required(found, "provisionDeviceKey")
        secret = _required(found, "provisionDeviceSecret")
        # A null is a member that was not given: ThingsBoard's own SDK sends such (clients spec 5).
        texts = {field: text_of(found.get(name)) for name, field in _TEXTS.items()}
        type_ = text_of(found.get("credentialsType"))
        gateway = (text_of(found.get("gateway")) or "").lower() == "true"
        return Provision(
            key=key,
            secret=secret,
            credentials_type="ACCESS_TOKEN" if type_ is None else _type(type_),
            gateway=gateway,
            **texts,
        )
    except PeerError as error:
        raise PeerError(str(error), code=INCOMPLETE) from error


def _type(name: object) -> CredentialsType:
    try:
        known: CredentialsType = msgspec.convert(name, CredentialsType)
    except msgspec.ValidationError as error:
        raise PeerError("credentialsType is not known", code=INCOMPLETE) from error
    return known


def _required(found: dict[str, bytes], name: str) -> str:
    if name not in found:
        raise PeerError(f"{name} is missing", code=INCOMPLETE)
    text = text_of(found[name])
    if text is None:
        raise PeerError(f"{name} is null", code=INCOMPLETE)
    return text
