"""Device profiles that speak Protobuf, and payloads for them made by Google's library."""

from typing import Any

from tbfast.codec.proto_schema import parse
from tbfast.model.auth import StoredCredentials
from tbfast.model.transport import MqttProfile, ProtobufPayload
from tests.support.mqtt_host import DEVICE
from tests.support.oracle_proto import message_class

TELEMETRY = """syntax = "proto3";
package telemetry;
message SensorDataReading {
  optional double temperature = 1;
  optional double humidity = 2;
  InnerObject inner_object = 3;
  message InnerObject {
    optional string key1 = 1;
    optional bool key2 = 2;
    optional double key3 = 3;
    optional int32 key4 = 4;
    optional string key5 = 5;
  }
}
"""
TIMED = """syntax = "proto3";
message Values { int32 level = 1; repeated double samples = 2; }
message Reading { optional int64 ts = 1; Values values = 2; }
"""
ATTRIBUTES = """syntax = "proto3";
message Attributes { optional string firmware = 1; optional int64 serial = 2; }
"""
RPC_REQUEST = """syntax = "proto3";
message Call {
  message Params { optional string pin = 1; optional int32 value = 2; }
  optional string method = 1; optional int32 requestId = 2; Params params = 3;
}
"""
RPC_RESPONSE = """syntax = "proto3";
message Answer { optional string payload = 1; }
"""
PAYLOAD = ProtobufPayload(
    telemetry_schema=TELEMETRY,
    attributes_schema=ATTRIBUTES,
    rpc_request_schema=RPC_REQUEST,
    rpc_response_schema=RPC_RESPONSE,
)
CONFIGURATION: dict[str, Any] = {
    "transportPayloadType": "PROTOBUF",
    "deviceTelemetryProtoSchema": TELEMETRY,
    "deviceAttributesProtoSchema": ATTRIBUTES,
    "deviceRpcRequestProtoSchema": RPC_REQUEST,
    "deviceRpcResponseProtoSchema": RPC_RESPONSE,
}


def known(**profile: Any) -> StoredCredentials:
    """Credentials of a device whose profile is this; Protobuf unless it says otherwise."""
    mqtt = MqttProfile(**{"payload": PAYLOAD} | profile)
    return StoredCredentials("token", "ACCESS_TOKEN", DEVICE, "pump", "MQTT", mqtt=mqtt)


def made(text: str, **members: Any) -> bytes:
    """A payload of the schema's root."""
    payload: bytes = message_class(parse(text))(**members).SerializeToString()
    return payload


def read(text: str, payload: bytes) -> Any:
    """Google's view of a payload."""
    return message_class(parse(text)).FromString(payload)
