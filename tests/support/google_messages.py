"""ThingsBoard's provisioning messages by Google's library, from the table of MQTT spec 7.4.

Knows nothing of tbfast.codec: a field number that is wrong there is not wrong here as well.
"""

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

_ENUMS: Final = {
    "ResponseStatus": ("UNKNOWN", "SUCCESS", "NOT_FOUND", "FAILURE"),
    "CredentialsType": ("ACCESS_TOKEN", "X509_CERTIFICATE", "MQTT_BASIC", "LWM2M_CREDENTIALS"),
}
_SCALARS: Final = {"string": 9, "bool": 8}
_MESSAGES: Final[dict[str, tuple[tuple[str, str], ...]]] = {  # fields count from 1
    "Keys": (("provisionDeviceKey", "string"), ("provisionDeviceSecret", "string")),
    "Token": (("token", "string"),),
    "Hash": (("hash", "string"),),
    "Basic": (("clientId", "string"), ("userName", "string"), ("password", "string")),
    "CredentialsData": (
        ("validateDeviceTokenRequestMsg", "Token"),
        ("validateDeviceX509CertRequestMsg", "Hash"),
        ("validateBasicMqttCredRequestMsg", "Basic"),
    ),
    "ProvisionDeviceRequestMsg": (
        ("deviceName", "string"),
        ("credentialsType", "CredentialsType"),
        ("provisionDeviceCredentialsMsg", "Keys"),
        ("credentialsDataProto", "CredentialsData"),
        ("gateway", "bool"),
    ),
    "ProvisionDeviceResponseMsg": (
        ("status", "ResponseStatus"),
        ("credentialsType", "CredentialsType"),
        ("credentialsValue", "string"),
    ),
}


def _pool() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(name="p.proto", package="p", syntax="proto3")
    for name, values in _ENUMS.items():
        enumeration = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enumeration.value.add(name=f"{value}", number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, type_) in enumerate(fields, 1):
            made = message.field.add(name=field, number=number, label=1)
            if type_ in _SCALARS:
                made.type = _SCALARS[type_]  # type: ignore[assignment]
            else:
                made.type = 14 if type_ in _ENUMS else 11  # type: ignore[assignment]
                made.type_name = f".p.{type_}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


_POOL: Final = _pool()


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"p.{name}"))


def encode(name: str, members: dict[str, Any]) -> bytes:
    """A message of these members; enums by name."""
    payload: bytes = json_format.ParseDict(members, _class(name)()).SerializeToString()
    return payload


def decode(name: str, payload: bytes) -> dict[str, Any]:
    """Every scalar member; enums by name."""
    message = _class(name).FromString(payload)
    found: dict[str, Any] = json_format.MessageToDict(
        message, always_print_fields_with_no_presence=True
    )
    return found
