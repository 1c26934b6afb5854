"""Runs on ThingsBoard's own SDK: a device registers itself, and connects with what it was given.

python tests/support/sdk_registers.py PORT KEY SECRET NAME [USER]: prints the credentials, as JSON.
With a user name it asks for basic credentials, whose other members the SDK sends as null.
"""

import json
import sys

from sdk_device import connected
from tb_device_mqtt import TBDeviceMqttClient, TBPublishInfo


def main(port: int, key: str, secret: str, name: str, user: str | None = None) -> None:
    credentials = TBDeviceMqttClient.provision(
        "127.0.0.1", key, secret, port, device_name=name, username=user, gateway=True
    )
    value = credentials["credentialsValue"]
    client = connected(TBDeviceMqttClient("127.0.0.1", port, value["userName"] if user else value))
    sent = client.send_telemetry({"ts": 1000, "values": {"n": 1}})
    assert sent.get() == TBPublishInfo.TB_ERR_SUCCESS
    client.disconnect()
    print(json.dumps(credentials))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
