"""Rows that people saved and no run holds: the controller reads them back in bounded steps."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tbfast._ext.ingest import Group, Ingest
from tbfast.cli.client import Refused
from tbfast.errors import StoreStall
from tbfast.store.journal import Journal
from tbfast.store.known import known_journal
from tbfast.store.layout import NODE_JOURNAL, Layout
from tests.support.audit import query
from tests.support.mqtt_client import connected
from tests.support.node import Node, running_node
from tests.support.waiting import wait_until

MB = 1 << 20
TEXT = "x" * 8000
ROWS_PER_BLOCK = 20
SMALL_HEAD = {"TBFAST_SERIES__HEAD_BYTES": str(2 * MB)}


def fill(root: Path, device: int, nbytes: int) -> int:
    """Rows {"n": ts, "text": ..} in the controller's own journal; their number."""
    layout = Layout(root)
    journal = Journal(
        layout.journal(NODE_JOURNAL), NODE_JOURNAL, known_journal(layout, NODE_JOURNAL)
    )
    ingest = Ingest()
    rows = written = seq = 0
    while written < nbytes:
        seq += 1
        ingest.at(1_000_000 + seq, seq)
        for _ in range(ROWS_PER_BLOCK):
            payload = f'{{"ts":{rows},"values":{{"n":{rows},"text":"{TEXT}{rows}"}}}}'
            ingest.append_json(device, payload.encode())
            rows += 1
        ingest.note(0, 0, 0)
        group = ingest.take(NODE_JOURNAL, journal.epoch, seq, seq, journal.written_keys + 1)
        wait_until(lambda: appended(journal, group), 30)  # noqa: B023
        assert group.value is not None
        written += len(group.value)
        ingest.recycle(group)
    journal.sync()
    journal.mark(journal.written)
    journal.close()
    return rows


def appended(journal: Journal, group: Group) -> bool:
    try:
        journal.append(group)
    except StoreStall:
        return False
    return True


def peak_bytes(pid: int) -> int:
    """The most resident memory a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(x.split()[1]) << 10 for x in status.splitlines() if x.startswith("VmHWM"))


def save(node: Node, body: dict[str, object]) -> bool:
    """Telemetry as people save it; False while the controller says to try again later."""
    with node.api() as api:
        path = f"/api/plugins/telemetry/DEVICE/{api.find('d0').id}/timeseries/ANY"
        try:
            api.request("POST", path, body=body)
        except Refused as error:
            assert "try again later" in str(error)
            return False
    return True


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Node]:
    """A node with one device, stopped."""
    with running_node(tmp_path / "data", workers=1, env=SMALL_HEAD) as node:
        node.add_devices(1)
        assert node.stop() == 0
        yield node


def test_memory_does_not_grow_with_the_journal(stopped: Node) -> None:
    peaks = []
    for nbytes in (24 * MB, 96 * MB):
        rows = fill(stopped.data_dir, 1, nbytes)
        stopped.start()
        wait_until(lambda: save(stopped, {"ts": 1 << 40, "values": {"late": 1}}), 60)
        peaks.append(peak_bytes(stopped.controller_pid()))
        assert query(stopped, "d0", "n") == {n: n for n in range(rows)}
        assert query(stopped, "d0", "late") == {1 << 40: 1}
        assert stopped.stop() == 0
    print(f"peaks: {[peak // MB for peak in peaks]} MB")
    assert peaks[1] - peaks[0] < 40 * MB


def test_what_was_saved_is_read_at_once_after_a_kill(stopped: Node) -> None:
    stopped.start()
    for n in range(3):
        assert save(stopped, {"ts": n, "values": {"n": n}})
    wanted = {0: 0, 1: 1, 2: 2}
    for again in range(1, 4):
        stopped.kill_all()
        stopped.start()
        assert query(stopped, "d0", "n") == wanted
        wait_until(lambda: save(stopped, {"ts": 9, "values": {"n": again}}))  # noqa: B023
        wanted[9] = again
    assert query(stopped, "d0", "n") == wanted


def test_damage_is_told_and_devices_are_served(stopped: Node) -> None:
    fill(stopped.data_dir, 1, 4 * MB)
    path = Layout(stopped.data_dir).journal(NODE_JOURNAL)
    Journal(path, NODE_JOURNAL).close()  # opening flushes the replayed log to a table file
    table = max(path.glob("*.sst"), key=lambda file: file.stat().st_size)
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 0xFF
    table.write_bytes(data)
    stopped.start()
    with connected(stopped.mqtt_port, "token-0") as client:
        client.publish_acknowledged(b'{"ts":1,"values":{"n":-1}}')
    refused = stopped.cli("query", "d0", "--keys", "n")
    assert refused.returncode == 1
    assert str(path) in refused.stderr and "tbfast store recover" in refused.stderr
    assert not save(stopped, {"ts": 1, "values": {"n": 1}})
    assert stopped.stop() == 0
    told = stopped.cli("store", "recover")
    assert told.returncode == 0 and f"journal/{NODE_JOURNAL}" in told.stdout
    stopped.start()
    found = query(stopped, "d0", "n")
    assert found[1] in (1, -1) and len(found) > 400
