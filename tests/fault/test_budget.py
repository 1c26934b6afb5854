"""A disk budget that is reached: the oldest rows go, nothing is refused, the newest are there."""

import base64
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tbfast.model import mqtt as m
from tbfast.model.ranges import RangeQuery
from tbfast.store.space import used_bytes
from tests.support.faulty_disk import small_disk
from tests.support.mqtt_client import connected
from tests.support.node import Node, running_node
from tests.support.waiting import wait_until

MB = 1 << 20
BUDGET = 160 * MB
MESSAGES = 5_000
TEXT_BYTES = 45_000  # random: no encoding makes it smaller than three quarters
RESERVE = {"TBFAST_DISK__RESERVE_BYTES": str(MB)}
SMALL_HEAD = {"TBFAST_SERIES__HEAD_BYTES": str(4 * MB)}


def _messages() -> Iterator[bytes]:
    rng = random.Random(1)
    for n in range(MESSAGES):
        text = base64.b64encode(rng.randbytes(TEXT_BYTES // 4 * 3))
        yield b'{"ts":%d,"values":{"n":%d,"text":"%s"}}' % (n, n, text)


def _kept(node: Node) -> list[int]:
    with node.api() as api:
        found = api.history(api.find("d0"), RangeQuery(keys=("n",), limit=1_000_000))
    return [point["value"] for point in json.loads(found)["n"]]


def _newest(count: int) -> list[int]:
    return list(range(MESSAGES - 1, MESSAGES - 1 - count, -1))


def test_the_oldest_rows_go_and_nothing_is_refused(tmp_path: Path) -> None:
    settings = {"TBFAST_DISK__BUDGET_BYTES": str(BUDGET), **RESERVE, **SMALL_HEAD}
    with running_node(tmp_path / "data", workers=1, env=settings) as node:
        (token,) = node.add_devices(1)
        with connected(node.mqtt_port, token) as client:
            for message in _messages():
                client.publish_acknowledged(message)
        wait_until(lambda: node.metric("tbfast_disk_dropped_points_total"), 20)
        wait_until(lambda: used_bytes(node.data_dir) <= BUDGET, 20, "within the budget")
        assert node.metric('tbfast_refused_total{protocol="mqtt",reason="store"}') == 0
        assert node.metric("tbfast_disk_budget_bytes") == BUDGET
        assert node.metric("tbfast_disk_alarm") == 1
        assert node.metric("tbfast_ready") == 1
        kept = _kept(node)
        assert kept == _newest(len(kept))
        assert MESSAGES // 20 < len(kept) < MESSAGES


def test_a_disk_filled_by_our_own_rows_goes_on(tmp_path: Path) -> None:
    """More than its size is written to a disk; the journal alone could fill it."""
    refused = 0
    with (
        small_disk(tmp_path / "disk", 192) as disk,
        running_node(disk.path / "data", workers=1, env=SMALL_HEAD, log=tmp_path / "log") as node,
    ):
        (token,) = node.add_devices(1)
        messages = list(_messages())
        sent = 0

        def publish() -> bool:
            nonlocal sent, refused
            with connected(node.mqtt_port, token) as client:
                while sent < MESSAGES:
                    client.publish(messages[sent])
                    if not isinstance(client.receive(), m.Puback):
                        refused += 1
                        return False
                    sent += 1
            return True

        wait_until(publish, 40, "all is acknowledged")
        print(f"sessions closed for lack of space: {refused}")
        kept = _kept(node)
        assert kept == _newest(len(kept))
        assert len(kept) > MESSAGES // 20
        assert node.stop() == 0
        node.start()
        kept = _kept(node)  # older ones may have gone meanwhile
        assert kept == _newest(len(kept))
        assert len(kept) > MESSAGES // 20
