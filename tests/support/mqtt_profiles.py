"""Device profiles with MQTT settings, and devices of them, made over REST."""

from typing import Any

from tests.support import proto_profiles as protos
from tests.support.server import Server


def profile(server: Server, name: str, **configuration: Any) -> str:
    """A new MQTT profile; its id."""
    status, made = server.rest("POST", "/api/deviceProfile", body(name, **configuration))
    assert status == 200, made
    return str(made["id"]["id"])


def body(name: str, **configuration: Any) -> dict[str, Any]:
    transport = {
        "type": "MQTT", "transportPayloadTypeConfiguration": protos.CONFIGURATION, **configuration,
    }  # fmt: skip
    return {
        "name": name,
        "type": "DEFAULT",
        "transportType": "MQTT",
        "profileData": {"transportConfiguration": transport},
    }


def device(server: Server, name: str, profile_id: str) -> str:
    """A new device of the profile; its token."""
    made = {"name": name, "deviceProfileId": {"entityType": "DEVICE_PROFILE", "id": profile_id}}
    status, answer = server.rest("POST", f"/api/device?accessToken={name}", made)
    assert status == 200, answer
    return name
