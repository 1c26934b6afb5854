"""A disk budget that is reached: the oldest rows go, nothing is refused, the newest are there."""

import base64
import json
import random
from pathlib import Path

from tbfast.store.space import used_bytes
from tests.support.mqtt_client import connected
from tests.support.node import running_node
from tests.support.waiting import wait_until

MB = 1 << 20
BUDGET = 160 * MB
MESSAGES = 4_000
TEXT_BYTES = 45_000  # random: no encoding makes it smaller than three quarters
SETTINGS = {
    "TBFAST_DISK__BUDGET_BYTES": str(BUDGET),
    "TBFAST_DISK__RESERVE_BYTES": str(MB),
    "TBFAST_SERIES__HEAD_BYTES": str(4 * MB),
}


def test_the_oldest_rows_go_and_nothing_is_refused(tmp_path: Path) -> None:
    rng = random.Random(1)
    with running_node(tmp_path / "data", workers=1, env=SETTINGS) as node:
        (token,) = node.add_devices(1)
        with connected(node.mqtt_port, token) as client:
            for n in range(MESSAGES):
                text = base64.b64encode(rng.randbytes(TEXT_BYTES // 4 * 3)).decode()
                client.publish_acknowledged(
                    b'{"ts":%d,"values":{"n":%d,"text":"%s"}}' % (n, n, text.encode())
                )
        wait_until(lambda: node.metric("tbfast_disk_dropped_points_total"), 20)
        wait_until(lambda: used_bytes(node.data_dir) <= BUDGET, 20, "within the budget")
        assert node.metric('tbfast_refused_total{protocol="mqtt",reason="store"}') == 0
        assert node.metric("tbfast_disk_budget_bytes") == BUDGET
        assert node.metric("tbfast_disk_alarm") == 1
        assert node.metric("tbfast_ready") == 1
        with node.api() as api:
            found = api.history(api.find("d0"), ["n"], None, None, 1_000_000)
        kept = [point["value"] for point in json.loads(found)["n"]]
        assert kept == list(range(MESSAGES - 1, MESSAGES - 1 - len(kept), -1))
        assert MESSAGES // 20 < len(kept) < MESSAGES
