"""Device profiles whose devices register themselves."""

from typing import Any

from tests.support.server import Server


def provisioning_profile(
    server: Server, key: str, strategy: str = "ALLOW_CREATE_NEW_DEVICES", **more: Any
) -> dict[str, str]:
    """A new profile, named after its key; the members of a request that its devices send."""
    body = {
        "name": f"profile {key}",
        "type": "DEFAULT",
        "transportType": "DEFAULT",
        "provisionType": strategy,
        "provisionDeviceKey": key,
        "profileData": {
            "configuration": {"type": "DEFAULT"},
            "transportConfiguration": {"type": "DEFAULT"},
            "provisionConfiguration": {
                "type": strategy, "provisionDeviceSecret": "s" + key, **more,
            },
        },
    }  # fmt: skip
    status, answer = server.rest("POST", "/api/deviceProfile", body)
    assert status == 200, answer
    return {"provisionDeviceKey": key, "provisionDeviceSecret": "s" + key}
