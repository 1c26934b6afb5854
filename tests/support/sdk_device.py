"""Runs on ThingsBoard's own SDK, in a process where its paho is the only one.

python tests/support/sdk_device.py PORT TOKEN [CA [CERTIFICATE KEY]]: sends telemetry as its users
do, waits for a call and for changed attributes, and prints what the SDK reports, as JSON.  With the
file of a certificate it speaks TLS; "-" as token: none.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from tb_device_mqtt import TBDeviceMqttClient, TBPublishInfo

CONNECT_S = 10.0


def connected(client: TBDeviceMqttClient, **tls: Any) -> TBDeviceMqttClient:
    """The client, once its session is accepted."""
    client.connect(timeout=int(CONNECT_S), **tls)
    deadline = time.monotonic() + CONNECT_S
    while not client.is_connected() and time.monotonic() < deadline:
        time.sleep(0.01)
    return client


def main(port: int, token: str, *files: str) -> None:
    names = dict(zip(("ca_certs", "cert_file", "key_file"), files, strict=False))
    client = TBDeviceMqttClient("localhost", port, None if token == "-" else token)
    told, called = threading.Event(), threading.Event()
    pushed: list[Any] = []

    def on_attributes(body: Any, *_: Any) -> None:
        pushed.append(body)
        told.set()

    def on_call(request: Any, body: Any) -> None:
        client.send_rpc_reply(request, {"echo": body["params"]})
        called.set()

    client.subscribe_to_all_attributes(on_attributes)
    client.set_server_side_rpc_request_handler(on_call)
    connected(client, tls=bool(files), **names)
    records = (
        {"temperature": 21.5, "on": True},
        {"ts": 1000, "values": {"n": 1}},
        [{"ts": 2000, "values": {"n": 2}}, {"ts": 3000, "values": {"n": 3}}],
    )
    results = [client.is_connected()]
    results += [client.send_telemetry(one).get() == TBPublishInfo.TB_ERR_SUCCESS for one in records]
    results += [
        client.send_attributes({"fw": "v1"}).get() == TBPublishInfo.TB_ERR_SUCCESS,
        _asked(lambda done: client.request_attributes(["fw"], ["limit"], callback=done))
        == {"client": {"fw": "v1"}, "shared": {"limit": 7}},
        _asked(lambda done: client.send_rpc_call("getCurrentTime", {}, done)) > 1_700_000_000_000,
    ]
    print("ready", flush=True)
    results += [called.wait(CONNECT_S), told.wait(CONNECT_S) and pushed == [{"limit": 8}]]
    results += [client.claim("secret").get() == TBPublishInfo.TB_ERR_SUCCESS]
    client.disconnect()
    print(json.dumps(results))


def _asked(ask: Callable[[Callable[..., None]], Any]) -> Any:
    """What the SDK hands to the callback of a request."""
    answers: list[Any] = []
    arrived = threading.Event()

    def done(*words: Any) -> None:
        # attributes: (answer, error or client); calls: (request id, answer, error)
        answers.extend(word for word in words if isinstance(word, dict | int))
        arrived.set()

    ask(done)
    assert arrived.wait(CONNECT_S), "the SDK heard nothing"
    dicts = [word for word in answers if isinstance(word, dict)]
    return dicts[0] if dicts else max(answers)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
