"""Runs on Adafruit's MiniMQTT as ThingsBoard's CircuitPython SDK drives it (clients spec 11).

python tests/support/circuitpython_device.py PORT TOKEN [CA]: a device's day; prints what it heard,
as JSON.  With the file of a certificate it speaks TLS.
"""

import json
import socket
import ssl
import sys
import time
from typing import Any

from adafruit_minimqtt.adafruit_minimqtt import MQTT

V1 = "v1/devices/me/"
WAIT_S = 20.0


def main(port: int, token: str, ca: str | None = None) -> None:
    heard: dict[str, Any] = {}
    client = MQTT(
        broker="localhost", port=port, client_id="sdk-client", username=token, password="pswd",
        keep_alive=120, socket_pool=socket, is_ssl=ca is not None,
        ssl_context=ssl.create_default_context(cafile=ca) if ca else None,
        socket_timeout=1, recv_timeout=10,
    )  # fmt: skip

    def on_message(client: MQTT, topic: str, payload: str) -> None:
        heard[topic] = json.loads(payload)
        if topic.startswith(V1 + "rpc/request/"):
            client.publish(topic.replace("request", "response"), '{"done":true}', qos=1)

    client.on_message = on_message
    client.connect()
    for filter in ("attributes", "attributes/response/+", "rpc/request/+", "rpc/response/+"):
        client.subscribe(V1 + filter, 1)
    client.publish(V1 + "telemetry", '{"ts": 1, "values": {"t": 21.5}}', qos=1)
    client.publish(V1 + "attributes", '{"board": "pico"}', qos=1)
    request = '{"clientKeys": "board", "sharedKeys": "limit"}'
    client.publish(V1 + "attributes/request/1", request, qos=1)
    client.publish(V1 + "rpc/request/2", '{"method": "getCurrentTime", "params": {}}', qos=1)
    print("ready", flush=True)
    wanted = {"attributes/response/1", "rpc/response/2", "rpc/request/0", "attributes"}
    deadline = time.monotonic() + WAIT_S
    while not {V1 + name for name in wanted} <= heard.keys() and time.monotonic() < deadline:
        client.loop(1)
    client.ping()
    client.disconnect()
    print(json.dumps(heard))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
