"""One device's day, played by clients nobody here wrote: plain, over TLS, with a certificate."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Certificate, TlsServer
from tests.support.talkers import TALKERS, WAIT_S, Talker

V1 = "v1/devices/me/"


@pytest.mark.parametrize("way", ["plain", "tls", "certificate"])
@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("client", TALKERS)
def test_a_day(tls_server: TlsServer, tmp_path: Path, client: str, version: int, way: str) -> None:
    name = f"{client}-{version}-{way}"
    if way == "certificate":
        own = Certificate(name)
        tls_server.add_x509_device(name, own)
        token, tls = None, tls_server.context(own, tmp_path)
    else:
        token = tls_server.add_device(name)
        tls = tls_server.context() if way == "tls" else None
    port = tls_server.mqtt_port if way == "plain" else tls_server.mqtt_tls_port
    one = TALKERS[client](port, token, version, tls)
    try:
        play(tls_server, name, one, version)
    finally:
        one.close()


def play(server: TlsServer, name: str, one: Talker, version: int) -> None:
    server.save_attributes(name, "SHARED_SCOPE", {"limit": 7, "mode": "eco"})
    granted = one.subscribe(
        V1 + "attributes", V1 + "attributes/response/+", V1 + "rpc/request/+", V1 + "rpc/response/+"
    )
    assert granted == [1, 1, 1, 1]
    assert one.subscribe("v1/devices/#") == [0x8F if version == 5 else 0x80]

    one.publish(V1 + "telemetry", '{"ts":1000,"values":{"t":21.5,"on":true,"s":"ä€😀"}}')
    one.publish(V1 + "telemetry", '[{"ts":2000,"values":{"t":22}},{"ts":3000,"values":{"t":23}}]')
    assert server.values(name, "t") == [21.5, 22, 23]
    assert (server.values(name, "on"), server.values(name, "s")) == ([True], ["ä€😀"])

    one.publish(V1 + "attributes", '{"fw":"v1","cells":[1,{"a":"b"},null]}')
    one.publish(V1 + "attributes/request/1", '{"clientKeys":"fw,cells","sharedKeys":"limit,none"}')
    assert one.inbox.next(V1 + "attributes/response/1") == {
        "client": {"fw": "v1", "cells": [1, {"a": "b"}, None]}, "shared": {"limit": 7},
    }  # fmt: skip
    assert server.attributes(name, "CLIENT_SCOPE") == {"fw": "v1", "cells": [1, {"a": "b"}, None]}

    server.save_attributes(name, "SHARED_SCOPE", {"limit": 8.5})
    assert one.inbox.next(V1 + "attributes") == {"limit": 8.5}
    server.delete_attributes(name, "SHARED_SCOPE", "mode")
    assert one.inbox.next(V1 + "attributes") == {"deleted": ["mode"]}

    answers: list[Any] = []
    params = {"pin": "23", "value": 1}
    caller = threading.Thread(
        target=lambda: answers.append(server.call(name, "twoway", "setGpio", params))
    )
    caller.start()
    call = one.inbox.next(V1 + "rpc/request/0")
    assert call == {"method": "setGpio", "params": params}
    one.publish(V1 + "rpc/response/0", json.dumps({"done": [1, "x"]}))
    caller.join(WAIT_S)
    assert answers == [(200, {"done": [1, "x"]})]
    assert server.call(name, "oneway", "reboot", None) == (200, None)
    assert one.inbox.next(V1 + "rpc/request/1") == {"method": "reboot", "params": None}

    before = int(time.time() * 1000)
    one.publish(V1 + "rpc/request/9", '{"method":"getCurrentTime","params":{}}')
    assert before <= one.inbox.next(V1 + "rpc/response/9") <= time.time() * 1000
