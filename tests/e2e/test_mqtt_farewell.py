"""Devices that say something and leave at once, as those on batteries do (MQTT spec 5.1)."""

import threading
from typing import Any

import pytest

from tbfast.model import mqtt as m
from tests.support.server import Server
from tests.support.wire import Wire

TIMES = 10  # what is lost now and then is lost in one of them


@pytest.mark.parametrize("polite", [True, False], ids=["DISCONNECT", "close"])
@pytest.mark.parametrize("qos", [0, 1])
def test_an_answer_to_a_call_counts_though_its_device_has_left(
    server: Server, token: str, qos: int, polite: bool
) -> None:
    results: list[tuple[int, Any]] = []

    def call() -> None:
        results.append(server.call(token, "twoway", "measure", None))

    for _ in range(TIMES):
        caller = threading.Thread(target=call)
        with Wire(server.mqtt_port).open(token) as device:
            calls = m.Subscription("v1/devices/me/rpc/request/+", 0)
            device.send(m.Subscribe(packet_id=1, subscriptions=(calls,)))
            device.expect(m.Suback(packet_id=1, reason_codes=(0,)))
            caller.start()
            asked = device.receive()
            assert isinstance(asked, m.Publish)
            topic = asked.topic.replace("request", "response")
            answer = m.Publish(topic, b'{"value":7}', qos, packet_id=2 if qos else None)
            device.send(answer, *([m.Disconnect()] if polite else []))
        caller.join()
    assert results == [(200, {"value": 7})] * TIMES
