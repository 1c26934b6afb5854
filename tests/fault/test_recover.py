"""Damaged files: no read past them in silence, and what is not damaged can be had again."""

import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from tbfast.cli import offline
from tbfast.errors import NotFound, TbfastError
from tbfast.model.ranges import RangeQuery
from tbfast.store.attributes import AttributeStore
from tbfast.store.layout import Layout
from tests.e2e.test_backup import acknowledged, attributes, fails, ok
from tests.fault.test_ledger import SEED
from tests.support.audit import audit
from tests.support.ledger import BASE_MS, Device, Record
from tests.support.node import Node, running_node

FLIPS = int(os.environ.get("TBFAST_TEST_FLIPS", "0"))  # in each file; 0: in some of them
SOME = 12
DEVICES = ("d0", "d1", "d2")
SEALED = ["d0", "d1"]


class Template(NamedTuple):
    root: Path
    record: Record


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """What a killed node left: sealed rows in two runs, and rows in journals and their logs."""
    root = tmp_path_factory.mktemp("recover") / "data"
    devices: dict[str, Device] = {}
    with running_node(root, workers=1) as node:
        for name in DEVICES:
            devices |= acknowledged(node, [name], 1500).devices
            attributes(node, name, {"fw": name})
            if name != DEVICES[-1]:
                ok(node, "store", "seal")
        node.kill_all()
    for dispensable in (*root.glob("*.sock"), root / "reserve"):
        dispensable.unlink()
    return Template(root, Record(devices))


class Missing(NamedTuple):
    devices: list[str]
    messages: int


def read(root: Path, record: Record) -> Missing:
    """What a stopped server answers: never anything wrong; what is not there."""
    lost = []
    missing = 0
    target = offline.open_store(root)
    try:
        for name, device in record.devices.items():
            try:
                view = target.find(name)
            except NotFound:
                lost.append(name)
                continue
            text = target.history(view, RangeQuery(keys=("n", "text"), limit=1_000_000))
            found = msgspec.json.decode(text, type=dict[str, list[dict[str, int | str]]])
            times = {p["ts"] for p in found.get("n", [])}
            for point in found.get("n", []):
                assert point["value"] == point["ts"] - BASE_MS < device.sent
            for point in found.get("text", []):
                assert point["value"] == f"message {point['ts'] - BASE_MS}"
            acked = {n for first, last in device.acked for n in range(first, last + 1)}
            missing += len(acked - {ts - BASE_MS for ts in times})
    finally:
        target.close()
    return Missing(lost, missing)


def files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        shard = path.relative_to(root).parts[0]
        stored = path.suffix in (".sst", ".log") or path.name.startswith(("MANIFEST", "CURRENT"))
        if path.is_file() and stored and shard in ("registry", "series", "journal", "attributes"):
            yield path


def flip(path: Path, rng: random.Random) -> int:
    data = bytearray(path.read_bytes())
    if not data:
        return -1
    at = rng.randrange(len(data))
    data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return at


def test_flipped_bits_of_every_file(template: Template, tmp_path: Path) -> None:
    print(f"TBFAST_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    clean = read_copy(template, tmp_path / "clean")
    assert clean == Missing([], 0)
    largest = max(d.acked[-1][1] + 1 for d in template.record.devices.values())  # one chunk
    names = [path.relative_to(template.root) for path in files(template.root)]
    chosen = names if FLIPS else rng.sample(names, SOME)
    for name in chosen:
        for _ in range(FLIPS or 1):
            root = tmp_path / "case"
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(template.root, root)
            at = flip(root / name, rng)
            case = f"{name} at {at}"
            try:
                before = read(root, template.record)
            except TbfastError as error:
                refused = str(error)
                assert "tbfast store recover" in refused, (case, refused)
            else:
                assert before == clean, case  # nobody looked there, or nothing was stored there
            told = offline.recover(root, None)
            after = read(root, template.record)
            lost = [text for one in told for text in one.lost + one.notes]
            print(case, after, lost)
            assert after == clean or lost, case
            for device in after.devices if name.suffix == ".sst" else ():
                assert any(device in text for text in lost), (case, lost)
            for one in told:
                assert Path(one.kept_at).is_dir(), case
            if name.name.startswith(("MANIFEST", "CURRENT")):
                assert after == clean, case
                assert not lost or "made anew" in lost[0], (case, lost)
            # The damage cost the block it is in, not the store.
            assert after.messages <= largest, case
            assert offline.recover(root, None) == [], case


@pytest.mark.parametrize("shard", ["registry", "series", "attributes", "journal/0"])
def test_a_list_of_tables_costs_nothing(template: Template, tmp_path: Path, shard: str) -> None:
    """Devices, names of keys, attributes: what is in no table yet is in the logs."""
    print(f"TBFAST_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    for name in ("CURRENT", "CURRENT", *["MANIFEST"] * 4):
        root = tmp_path / "case"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(template.root, root)
        (path,) = (root / shard).glob(f"{name}*")
        case = f"{path.name} at {flip(path, rng)}"
        told = offline.recover(root, None)
        assert [one.shard for one in told] in ([shard], []), case
        assert all("made anew" in text for one in told for text in one.notes), (case, told)
        assert not [text for one in told for text in one.lost], (case, told)
        assert read(root, template.record) == Missing([], 0), case
        assert client_attributes(root) == SEALED, case


def client_attributes(root: Path) -> list[str]:
    """The "fw" of each device whose rows are sealed: then it is in the store."""
    store = AttributeStore(Layout(root).attributes)
    found = [store.read(number, "CLIENT_SCOPE", ["fw"]) for number in range(1, len(SEALED) + 1)]
    store.close()
    return [json.loads(one.text) for some in found for one in some]


def read_copy(template: Template, to: Path) -> Missing:
    shutil.copytree(template.root, to)
    return read(to, template.record)


def test_a_node_goes_on_with_what_was_recovered(template: Template, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(template.root, root)
    node = Node(root, workers=1)
    table = max((root / "series").glob("*.sst"), key=lambda path: path.stat().st_size)
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 0xFF
    table.write_bytes(data)
    assert "tbfast store recover" in fails(node, 1, "query", "d0", "--limit", "100000")
    told = ok(node, "store", "recover")
    assert told.startswith("series: ") and "lost: " in told and "damaged-" in told
    assert ok(node, "store", "recover") == "nothing is damaged\n"
    node.start()
    try:
        later = acknowledged(node, ["d3"], 200)
        complete = {
            name: device
            for name, device in template.record.devices.items()
            if name == DEVICES[-1]  # not sealed when the damage came
        }
        empty = {
            name: Device(device.sent, [], []) for name, device in template.record.devices.items()
        }
        audit(node, Record({**empty, **complete, **later.devices}))
        assert node.stop() == 0
    finally:
        if node.process is not None:
            node.kill_all()


def test_an_interrupted_recovery_is_noticed_and_finished(
    template: Template, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    shutil.copytree(template.root, root)
    layout = Layout(root)
    node = Node(root, workers=1)
    # As after a kill between the two renames.
    shutil.copytree(layout.registry, root / "registry.damaged-20260101-000000")
    layout.registry.rename(root / "registry.recovering")
    layout.unfinished.write_text(
        "'tbfast store recover' did not finish; run 'tbfast store recover' again\n"
    )
    assert "did not finish" in fails(node, 1, "device", "list")
    assert ok(node, "store", "recover") == "nothing is damaged\n"
    assert read(root, template.record) == Missing([], 0)


def test_recover_needs_a_stopped_server_and_a_store(template: Template, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(template.root, root)
    node = Node(root, workers=1)
    assert "is no store" in fails(node, 1, "store", "recover", "--shard", "journal/x")
    assert "there is no store" in fails(node, 3, "store", "recover", "--shard", "journal/77")
    assert ok(node, "store", "recover", "--shard", "series") == "nothing is damaged\n"
    lock = Layout(root).acquire()
    try:
        assert "in use" in fails(node, 4, "store", "recover")
    finally:
        os.close(lock)
