"""What a device profile must look like (REST spec 5)."""

import re
from typing import Any, Final

import msgspec

from tbfast import limits
from tbfast.codec.proto_model import SchemaError
from tbfast.codec.proto_table import COMPILERS
from tbfast.control.credentials import bare_chain, sha3
from tbfast.control.lwm2m_servers import checked_servers
from tbfast.control.rules import InvalidEntity, checked, checked_json
from tbfast.errors import LocalError
from tbfast.model.profile import DeviceProfile, ProvisionType, provision_of
from tbfast.model.transport import Payload, ProtobufPayload, TransportType, mqtt_profile

_TYPED_PARTS: Final = ("configuration", "transportConfiguration", "provisionConfiguration")


class ProfileDraft(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller may set; ``provision_type`` None: as ``data`` says, else DISABLED."""

    name: str
    description: str | None = None
    image: str | None = None
    transport_type: TransportType = "DEFAULT"
    provision_type: ProvisionType | None = None
    provision_key: str | None = None
    rule_chain_id: str | None = None
    edge_rule_chain_id: str | None = None
    dashboard_id: str | None = None
    queue_name: str | None = None
    firmware_id: str | None = None
    software_id: str | None = None
    data: dict[str, Any] | None = None


def drawn(draft: ProfileDraft, present: DeviceProfile) -> DeviceProfile:
    """``present`` with everything the draft says, checked; the next version.

    Raises InvalidEntity in the words of REST spec 5.
    """
    fields = msgspec.structs.asdict(draft)
    fields["name"] = checked("device profile name", draft.name)
    fields["data"] = _filled(draft)
    if draft.transport_type == "LWM2M":
        transport = fields["data"]["transportConfiguration"]
        fields["data"]["transportConfiguration"] = checked_servers(transport)
    fields["provision_type"] = fields["data"]["provisionConfiguration"]["type"]
    fields["provision_key"] = draft.provision_key or None
    profile = msgspec.structs.replace(present, **fields, version=present.version + 1)
    checked_json(
        "the device profile",
        msgspec.structs.asdict(profile),
        limits.REGISTRY_PROFILE_BYTES,
        limits.REGISTRY_PROFILE_DEPTH,
    )
    try:
        mqtt = mqtt_profile(profile.transport_type, profile.data["transportConfiguration"])
        _check_schemas(mqtt.payload)
        return _provisioned(profile)
    except InvalidEntity:
        raise
    except LocalError as error:
        raise InvalidEntity(str(error)) from error


def authority_of(profile: DeviceProfile) -> str | None:
    """The certificate whose chains register devices, as `bare_chain` has it; None if none."""
    settings = provision_of(profile)
    if settings.type != "X509_CERTIFICATE_CHAIN":
        return None
    return bare_chain(settings.secret)[0]


def _check_schemas(payload: Payload) -> None:
    """Raises InvalidEntity that says which schema is refused, at which line, and what to do."""
    if not isinstance(payload, ProtobufPayload):
        return
    schemas = {
        "telemetry": ("deviceTelemetryProtoSchema", payload.telemetry_schema),
        "attributes": ("deviceAttributesProtoSchema", payload.attributes_schema),
        "rpc_request": ("deviceRpcRequestProtoSchema", payload.rpc_request_schema),
        "rpc_response": ("deviceRpcResponseProtoSchema", payload.rpc_response_schema),
    }
    for kind, (member, text) in schemas.items():
        if text and text.strip():
            try:
                COMPILERS[kind](text)
            except SchemaError as error:
                raise InvalidEntity(f"{member}: {error}") from error


def _filled(draft: ProfileDraft) -> dict[str, Any]:
    """profileData with the parts that were left out; their types agree with the profile's."""
    data: dict[str, Any] = {"alarms": None, **(draft.data or {})}
    for part in _TYPED_PARTS:
        given = data.get(part)
        if given is not None and not isinstance(given, dict):
            raise InvalidEntity(f"profileData.{part} should be an object")
    provision = data.get("provisionConfiguration") or {}
    wanted = {
        "configuration": "DEFAULT",
        "transportConfiguration": draft.transport_type,
        "provisionConfiguration": draft.provision_type or provision.get("type") or "DISABLED",
    }
    for part, type_ in wanted.items():
        made = {"type": type_, **(data.get(part) or {})}
        if made["type"] != type_:
            raise InvalidEntity(
                f"profileData.{part}.type is {made['type']!r}, but the profile's is {type_!r}"
            )
        data[part] = made
    provision = data["provisionConfiguration"]
    provision.setdefault("provisionDeviceSecret", None)
    try:
        msgspec.convert(provision["type"], ProvisionType)
    except msgspec.ValidationError as error:
        raise InvalidEntity(f"profileData.provisionConfiguration.type: {error}") from error
    return data


def _provisioned(profile: DeviceProfile) -> DeviceProfile:
    """The profile with the key under which its devices provision themselves (MQTT spec 1.5)."""
    try:
        settings = provision_of(profile)
    except msgspec.ValidationError as error:
        raise InvalidEntity(f"profileData.provisionConfiguration: {error}") from error
    if settings.type != "X509_CERTIFICATE_CHAIN":
        if settings.key is not None:
            checked("provision device key", settings.key)
        return profile
    try:
        groups = re.compile(settings.certificate_pattern).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidEntity(f"certificateRegExPattern is no regular expression: {error}") from error
    if not groups:
        raise InvalidEntity("certificateRegExPattern should have a group: it is the device's name")
    chain = bare_chain(settings.secret)
    provision = {
        **profile.data["provisionConfiguration"],
        "provisionDeviceSecret": settings.secret,
    }
    return msgspec.structs.replace(
        profile,
        provision_key=sha3(chain[0]),
        data={**profile.data, "provisionConfiguration": provision},
    )
