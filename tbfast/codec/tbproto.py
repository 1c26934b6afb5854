"""ThingsBoard's fixed Protobuf messages (MQTT spec 7.4), by the same tables as user schemas.

Bodies in and out are what protobuf-JSON makes of them: members by their JSON names, enums by
name, 64-bit numbers as text.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import msgspec

from tbfast.codec.proto_json import encode as encode_message
from tbfast.codec.proto_schema import parse
from tbfast.codec.proto_table import Compiled

_TRANSPORT: Final = """syntax = "proto3"; package transport;
enum KeyValueType { BOOLEAN_V = 0; LONG_V = 1; DOUBLE_V = 2; STRING_V = 3; JSON_V = 4; }
message KeyValueProto {
  string key = 1; KeyValueType type = 2; bool bool_v = 3; int64 long_v = 4; double double_v = 5;
  string string_v = 6; string json_v = 7;
}
message TsKvProto { int64 ts = 1; KeyValueProto kv = 2; optional int64 version = 3; }
message TsKvListProto { int64 ts = 1; repeated KeyValueProto kv = 2; }
message PostTelemetryMsg { repeated TsKvListProto tsKvList = 1; }
message PostAttributeMsg { repeated KeyValueProto kv = 1; bool shared = 2; }
message GetAttributeResponseMsg {
  int32 requestId = 1; repeated TsKvProto clientAttributeList = 2;
  repeated TsKvProto sharedAttributeList = 3; bool isMultipleAttributesRequest = 4;
  string error = 5; bool sharedStateMsg = 6;
}
message AttributeUpdateNotificationMsg {
  repeated TsKvProto sharedUpdated = 1; repeated string sharedDeleted = 2;
}
message ToDeviceRpcRequestMsg {
  int32 requestId = 1; string methodName = 2; string params = 3; int64 expirationTime = 4;
  int64 requestIdMSB = 5; int64 requestIdLSB = 6; bool oneway = 7; bool persisted = 8;
  optional int32 retries = 9; optional string additionalInfo = 10;
}
message ToServerRpcResponseMsg { int32 requestId = 1; string payload = 2; string error = 3; }
enum ProvisionResponseStatus { UNKNOWN = 0; SUCCESS = 1; NOT_FOUND = 2; FAILURE = 3; }
enum CredentialsType {
  ACCESS_TOKEN = 0; X509_CERTIFICATE = 1; MQTT_BASIC = 2; LWM2M_CREDENTIALS = 3;
}
message ProvisionDeviceCredentialsMsg {
  string provisionDeviceKey = 1; string provisionDeviceSecret = 2;
}
message ValidateDeviceTokenRequestMsg { string token = 1; }
message ValidateDeviceX509CertRequestMsg { string hash = 1; }
message ValidateBasicMqttCredRequestMsg {
  string clientId = 1; string userName = 2; string password = 3;
}
message CredentialsDataProto {
  ValidateDeviceTokenRequestMsg validateDeviceTokenRequestMsg = 1;
  ValidateDeviceX509CertRequestMsg validateDeviceX509CertRequestMsg = 2;
  ValidateBasicMqttCredRequestMsg validateBasicMqttCredRequestMsg = 3;
}
message ProvisionDeviceRequestMsg {
  string deviceName = 1; CredentialsType credentialsType = 2;
  ProvisionDeviceCredentialsMsg provisionDeviceCredentialsMsg = 3;
  CredentialsDataProto credentialsDataProto = 4; bool gateway = 5;
}
message ProvisionDeviceResponseMsg {
  ProvisionResponseStatus status = 1; CredentialsType credentialsType = 2;
  string credentialsValue = 3;
}
message ClaimDevice { string secretKey = 1; int64 durationMs = 2; }
message AttributesRequest { string clientKeys = 1; string sharedKeys = 2; }
message RpcRequest { string method = 1; string params = 2; }
"""


@cache
def _compiled(name: str) -> Compiled:
    return Compiled(parse(_TRANSPORT).rooted(f"transport.{name}"))


def decode(name: str, payload: bytes | memoryview) -> dict[str, Any]:
    """Members of a fixed message; PeerError (0x99) for bytes that are none."""
    found: dict[str, Any] = msgspec.json.decode(_compiled(name).table.print(payload))
    return found


def encode(name: str, members: Mapping[str, Any]) -> bytes:
    """A fixed message of these members."""
    schema = _compiled(name).schema
    return encode_message(schema, schema.root_message, members)


def attributes(request: int, client: bytes, shared: bytes, *, several: bool) -> bytes:
    """The reply to a request for attributes; scopes are JSON objects, b"" = none."""
    members = {
        "requestId": request,
        "clientAttributeList": _key_values(client),
        "sharedAttributeList": _key_values(shared),
        "isMultipleAttributesRequest": several,
    }
    return encode("GetAttributeResponseMsg", members)


def attributes_updated(body: bytes) -> bytes:
    """Shared attributes were saved: the JSON object of that save."""
    return encode("AttributeUpdateNotificationMsg", {"sharedUpdated": _key_values(body)})


def attributes_deleted(keys: tuple[str, ...]) -> bytes:
    """Shared attributes were deleted."""
    return encode("AttributeUpdateNotificationMsg", {"sharedDeleted": list(keys)})


def rpc_reply(request: int, payload: bytes = b"", *, error: str = "") -> bytes:
    """What the server's method returned, as JSON text, or why nothing did."""
    members = {"requestId": request, "payload": payload.decode(errors="replace"), "error": error}
    return encode("ToServerRpcResponseMsg", members)


def _key_values(body: bytes) -> list[dict[str, Any]]:
    """TsKvProto of every member of a JSON object."""
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw]) if body else {}
    return [{"kv": {"key": name, **_typed(bytes(text))}} for name, text in members.items()]


def _typed(text: bytes) -> dict[str, Any]:
    first = text[:1]
    if first in (b"t", b"f"):
        return {"type": "BOOLEAN_V", "boolV": text == b"true"}
    if first == b'"':
        return {"type": "STRING_V", "stringV": msgspec.json.decode(text, type=str)}
    if first in (b"{", b"["):
        return {"type": "JSON_V", "jsonV": text.decode()}
    if text.lstrip(b"-").isdigit():
        return {"type": "LONG_V", "longV": int(text)}
    return {"type": "DOUBLE_V", "doubleV": float(text)}
