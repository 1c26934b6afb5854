"""Runs on ThingsBoard's own SDKs: a device that updates itself.

python tests/support/sdk_ota.py mqtt|http PORT TOKEN CHUNK_SIZE: prints length and SHA-256 of what
the SDK takes for the new firmware, which is titled like the token.
"""

import hashlib
import sys
import threading
from pathlib import Path

UPDATE_S = 50.0  # the SDK's own check fails at random, then it starts over


def mqtt(port: int, token: str, chunk_size: int) -> bytes:
    from tb_device_mqtt import TBDeviceMqttClient

    received: list[bytes] = []
    arrived = threading.Event()

    def taken(client: object, data: bytes, version: str) -> None:
        received.append(data)
        arrived.set()

    client = TBDeviceMqttClient("127.0.0.1", port, token, chunk_size=chunk_size)
    client.set_on_firmware_received_callback(taken)
    client.connect(timeout=10)
    client.get_firmware_update()
    assert arrived.wait(UPDATE_S), "no firmware came"
    client.disconnect()
    client.stop()
    return received[0]


def http(port: int, token: str, chunk_size: int) -> bytes:
    from tb_device_http import TBHTTPDevice

    device = TBHTTPDevice(f"http://127.0.0.1:{port}", token, token, chunk_size)
    assert device.connect()
    stored = Path(token)  # where the SDK puts it: the title in the working directory
    for _ in range(10):
        device.get_firmware_update()
        if stored.exists():
            return stored.read_bytes()
    raise AssertionError("no firmware came")


if __name__ == "__main__":
    kind, port, token, chunk_size = sys.argv[1:]
    data = {"mqtt": mqtt, "http": http}[kind](int(port), token, int(chunk_size))
    print(len(data), hashlib.sha256(data).hexdigest(), flush=True)
