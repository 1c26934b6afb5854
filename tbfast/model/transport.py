"""What a device profile says about a transport (MQTT spec 7.1, REST spec 5)."""

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from tbfast.errors import LocalError

TransportType = Literal["DEFAULT", "MQTT", "COAP", "LWM2M", "SNMP"]

TELEMETRY_TOPIC: Final = "v1/devices/me/telemetry"
ATTRIBUTES_TOPIC: Final = "v1/devices/me/attributes"


class JsonPayload(msgspec.Struct, frozen=True, tag="JSON", tag_field="transportPayloadType"):
    """Devices send and get JSON."""


class ProtobufPayload(
    msgspec.Struct,
    frozen=True,
    tag="PROTOBUF",
    tag_field="transportPayloadType",
    rename={
        "telemetry_schema": "deviceTelemetryProtoSchema",
        "attributes_schema": "deviceAttributesProtoSchema",
        "rpc_request_schema": "deviceRpcRequestProtoSchema",
        "rpc_response_schema": "deviceRpcResponseProtoSchema",
        "json_compatible": "enableCompatibilityWithJsonPayloadFormat",
        "json_downlinks": "useJsonPayloadFormatForDefaultDownlinkTopics",
    },
):
    """Devices send and get Protobuf by these schemas; a blank one is the default schema.

    ``json_compatible``: JSON is understood as well; ``json_downlinks``: and sent on the topics
    that name no format.
    """

    telemetry_schema: str | None = None
    attributes_schema: str | None = None
    rpc_request_schema: str | None = None
    rpc_response_schema: str | None = None
    json_compatible: bool = False
    json_downlinks: bool = False


Payload = JsonPayload | ProtobufPayload


class MqttProfile(msgspec.Struct, frozen=True, omit_defaults=True):
    """How MQTT sessions of a profile's devices behave; the default is that of a DEFAULT profile.

    The topics are filters in the dialect of MQTT spec 7.1, never blank. ``named_topics``: rows
    carry the topic they came on, as those of MQTT profiles do and those of DEFAULT ones do not.
    """

    telemetry_topic: str = TELEMETRY_TOPIC
    attributes_topic: str = ATTRIBUTES_TOPIC
    attributes_subscribe_topic: str = ATTRIBUTES_TOPIC
    send_ack_on_validation_exception: bool = False
    payload: Payload = JsonPayload()
    sparkplug: bool = False
    sparkplug_attributes: tuple[str, ...] = ()  # metric names
    named_topics: bool = False


DEFAULT_MQTT: Final = MqttProfile()


class _Mqtt(msgspec.Struct, rename="camel"):
    device_telemetry_topic: str | None = None
    device_attributes_topic: str | None = None
    device_attributes_subscribe_topic: str | None = None
    sparkplug: bool | None = None
    sparkplug_attributes_metric_names: tuple[str, ...] | None = None
    send_ack_on_validation_exception: bool | None = None
    transport_payload_type_configuration: Payload | None = None


def mqtt_profile(transport_type: str, configuration: Mapping[str, Any]) -> MqttProfile:
    """``profileData.transportConfiguration`` of a profile; all defaults unless its type is MQTT.

    Raises LocalError, in the words of its writer, for a member of a wrong type.
    """
    if transport_type != "MQTT":
        return DEFAULT_MQTT
    try:
        given = msgspec.convert(configuration, _Mqtt)
    except msgspec.ValidationError as error:
        raise LocalError(f"profileData.transportConfiguration: {error}") from error
    return MqttProfile(
        telemetry_topic=_topic(given.device_telemetry_topic, TELEMETRY_TOPIC),
        attributes_topic=_topic(given.device_attributes_topic, ATTRIBUTES_TOPIC),
        attributes_subscribe_topic=_topic(
            given.device_attributes_subscribe_topic, ATTRIBUTES_TOPIC
        ),
        send_ack_on_validation_exception=bool(given.send_ack_on_validation_exception),
        payload=given.transport_payload_type_configuration or JsonPayload(),
        sparkplug=bool(given.sparkplug),
        sparkplug_attributes=given.sparkplug_attributes_metric_names or (),
        named_topics=True,
    )


def _topic(given: str | None, default: str) -> str:
    return given if given and given.strip() else default
