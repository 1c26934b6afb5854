"""Runs on ThingsBoard's own SDK: a device registers itself, and connects with what it was given.

python tests/support/sdk_registers.py PORT KEY SECRET NAME: prints the credentials, as JSON.
"""

import json
import sys

from sdk_device import connected
from tb_device_mqtt import TBDeviceMqttClient, TBPublishInfo


def main(port: int, key: str, secret: str, name: str) -> None:
    credentials = TBDeviceMqttClient.provision(
        "127.0.0.1", key, secret, port, device_name=name, gateway=True
    )
    client = connected(TBDeviceMqttClient("127.0.0.1", port, credentials["credentialsValue"]))
    sent = client.send_telemetry({"ts": 1000, "values": {"n": 1}})
    assert sent.get() == TBPublishInfo.TB_ERR_SUCCESS
    client.disconnect()
    print(json.dumps(credentials))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
