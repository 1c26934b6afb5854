"""What a device says about its transport: ``deviceData`` of REST spec 3."""

from typing import Any, Final, Literal

import msgspec

from tbfast.errors import LocalError
from tbfast.model.transport import TransportType

PowerMode = Literal["PSM", "DRX", "E_DRX"]


class DefaultDevice(msgspec.Struct, frozen=True, tag="DEFAULT"):
    """Nothing to say."""


class MqttDevice(msgspec.Struct, frozen=True, tag="MQTT"):
    """Nothing to say."""


class _Powered(msgspec.Struct, frozen=True, rename="camel"):
    """How a sleeping device can be reached; times in ms."""

    power_mode: PowerMode | None = None
    psm_activity_timer: int | None = None
    edrx_cycle: int | None = None
    paging_transmission_window: int | None = None


class CoapDevice(_Powered, frozen=True, tag="COAP", rename="camel"):
    """Reached over CoAP."""


class Lwm2mDevice(_Powered, frozen=True, tag="LWM2M", rename="camel"):
    """Reached over LwM2M."""


class SnmpDevice(msgspec.Struct, frozen=True, tag="SNMP", rename="camel"):
    """An SNMP agent."""

    host: str = "localhost"
    port: int = 161
    protocol_version: Literal["V1", "V2C", "V3"] = "V2C"
    community: str | None = "public"
    username: str | None = None
    security_name: str | None = None
    context_name: str | None = None
    authentication_protocol: (
        Literal["SHA_1", "SHA_224", "SHA_256", "SHA_384", "SHA_512", "MD5"] | None
    ) = None
    authentication_passphrase: str | None = None
    privacy_protocol: Literal["DES", "AES_128", "AES_192", "AES_256"] | None = None
    privacy_passphrase: str | None = None
    engine_id: str | None = None


DeviceTransport = DefaultDevice | MqttDevice | CoapDevice | Lwm2mDevice | SnmpDevice

_BLANK: Final[dict[TransportType, DeviceTransport]] = {
    "DEFAULT": DefaultDevice(),
    "MQTT": MqttDevice(),
    "COAP": CoapDevice(),
    "LWM2M": Lwm2mDevice(),
    "SNMP": SnmpDevice(),
}
_CONFIGURATION: Final = {"type": "DEFAULT"}
DEFAULT_DATA: Final = {"configuration": _CONFIGURATION, "transportConfiguration": _CONFIGURATION}


def filled(given: dict[str, Any] | None, transport_type: TransportType) -> dict[str, Any] | None:
    """Device data as it is stored: complete, for the profile's transport; None = all DEFAULT.

    A configuration for another transport gives way to a blank one, as in ThingsBoard. Raises
    LocalError for members of a wrong type.
    """
    transport = (given or {}).get("transportConfiguration")
    made = _BLANK[transport_type]
    if isinstance(transport, dict) and transport.get("type") == transport_type:
        try:
            made = msgspec.convert(transport, DeviceTransport)
        except msgspec.ValidationError as error:
            raise LocalError(f"deviceData.transportConfiguration: {error}") from error
        if isinstance(made, SnmpDevice) and not 0 < made.port < 1 << 16:
            raise LocalError("deviceData.transportConfiguration.port should be 1 to 65535")
    if isinstance(made, DefaultDevice):
        return None
    return {"configuration": _CONFIGURATION, "transportConfiguration": msgspec.to_builtins(made)}
