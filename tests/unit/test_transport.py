"""What a profile says about MQTT (MQTT spec 7.1)."""

import msgspec
import pytest

from tbfast.errors import LocalError
from tbfast.model.transport import (
    ATTRIBUTES_TOPIC,
    DEFAULT_MQTT,
    TELEMETRY_TOPIC,
    JsonPayload,
    MqttProfile,
    ProtobufPayload,
    mqtt_profile,
)

FULL = {
    "type": "MQTT",
    "deviceTelemetryTopic": "/t",
    "deviceAttributesTopic": "a/+",
    "deviceAttributesSubscribeTopic": "s/#",
    "sparkplug": True,
    "sparkplugAttributesMetricNames": ["Node/*"],
    "sendAckOnValidationException": True,
    "transportPayloadTypeConfiguration": {
        "transportPayloadType": "PROTOBUF",
        "deviceTelemetryProtoSchema": "T",
        "deviceAttributesProtoSchema": "A",
        "deviceRpcRequestProtoSchema": "Q",
        "deviceRpcResponseProtoSchema": "R",
        "enableCompatibilityWithJsonPayloadFormat": True,
        "useJsonPayloadFormatForDefaultDownlinkTopics": True,
    },
}


def test_every_field() -> None:
    payload = ProtobufPayload("T", "A", "Q", "R", True, True)
    assert mqtt_profile("MQTT", FULL) == MqttProfile(
        "/t", "a/+", "s/#", True, payload, True, ("Node/*",), True
    )


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_blank_topics_are_the_defaults(blank: str | None) -> None:
    names = ("deviceTelemetryTopic", "deviceAttributesTopic", "deviceAttributesSubscribeTopic")
    found = mqtt_profile("MQTT", {"type": "MQTT", **dict.fromkeys(names, blank)})
    assert (found.telemetry_topic, found.attributes_topic, found.attributes_subscribe_topic) == (
        TELEMETRY_TOPIC, ATTRIBUTES_TOPIC, ATTRIBUTES_TOPIC,
    )  # fmt: skip
    assert found.payload == JsonPayload()


def test_other_transports_have_the_defaults_without_topics() -> None:
    assert mqtt_profile("DEFAULT", FULL) is DEFAULT_MQTT
    assert not DEFAULT_MQTT.named_topics


@pytest.mark.parametrize(
    "wrong",
    [
        {"deviceTelemetryTopic": 5},
        {"sparkplugAttributesMetricNames": "x"},
        {"transportPayloadTypeConfiguration": {"transportPayloadType": "XML"}},
        {"transportPayloadTypeConfiguration": {}},
    ],
)
def test_wrong_members_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(LocalError, match=r"transportConfiguration: .*\$\."):
        mqtt_profile("MQTT", wrong)


def test_it_travels_between_processes() -> None:
    for profile in (DEFAULT_MQTT, mqtt_profile("MQTT", FULL)):
        packed = msgspec.msgpack.encode(profile)
        assert msgspec.msgpack.decode(packed, type=MqttProfile) == profile
    assert msgspec.msgpack.encode(DEFAULT_MQTT) == b"\x80"
