"""Attributes over raw MQTT, on a real node (MQTT spec 4)."""

import time
from collections.abc import Callable

from tbfast.model import mqtt as m
from tests.support.wire import Wire

NewWire = Callable[..., Wire]
PROMPT_S = 0.6  # a read that waits for rows which never come takes a second


def test_a_message_without_values_delays_no_reads(wire: NewWire, token: str) -> None:
    device = wire().open(token)
    took = []
    for n in (1, 2, 3):  # the quickest counts: the machine may be busy
        device.publish("{}")
        began = time.monotonic()
        device.send(m.Publish("v1/devices/me/attributes/request/1", b"{}", 1, packet_id=2))
        device.expect(
            m.Puback(2),
            m.Publish("v1/devices/me/attributes/response/1", b"{}", 1, packet_id=n),
        )
        took.append(time.monotonic() - began)
    assert min(took) < PROMPT_S
