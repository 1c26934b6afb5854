"""Runs on ThingsBoard's own SDK, in a process where its paho is the only one.

python tests/support/sdk_device.py PORT TOKEN: sends telemetry as its users do and prints what the
SDK reports, as JSON.
"""

import json
import sys
import time

from tb_device_mqtt import TBDeviceMqttClient, TBPublishInfo

CONNECT_S = 10.0


def main(port: int, token: str) -> None:
    client = TBDeviceMqttClient("127.0.0.1", port, token)
    client.connect(timeout=int(CONNECT_S))
    deadline = time.monotonic() + CONNECT_S
    while not client.is_connected() and time.monotonic() < deadline:
        time.sleep(0.01)
    records = (
        {"temperature": 21.5, "on": True},
        {"ts": 1000, "values": {"n": 1}},
        [{"ts": 2000, "values": {"n": 2}}, {"ts": 3000, "values": {"n": 3}}],
    )
    results = [client.is_connected()]
    results += [client.send_telemetry(one).get() == TBPublishInfo.TB_ERR_SUCCESS for one in records]
    client.disconnect()
    print(json.dumps(results))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
