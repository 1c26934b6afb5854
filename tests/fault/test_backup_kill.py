"""kill -9 in the middle of a backup or of a restore: nothing half made is taken for whole."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tbfast.store.layout import Layout
from tests.e2e.test_backup import acknowledged, ok
from tests.fault.test_ledger import SEED
from tests.support.audit import audit, audit_stopped
from tests.support.node import ROOT, Node, running_node
from tests.support.waiting import wait_until

ROUNDS = int(os.environ.get("TBFAST_TEST_BACKUP_ROUNDS", "6"))
LONGEST_S = 1.5


def killed(node: Node, rng: random.Random, *words: str) -> None:
    """Starts a command and kills it at a random moment, if it has not ended before."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tbfast", *words, "--data-dir", str(node.data_dir)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    signal.sigtimedwait([], rng.uniform(0.1, LONGEST_S))  # the moment is part of the fault
    process.kill()
    process.wait()


def test_kills_in_backups_and_restores(tmp_path: Path) -> None:
    print(f"TBFAST_TEST_SEED={SEED}")
    rng = random.Random(SEED)
    with running_node(tmp_path / "data") as node:
        record = acknowledged(node, ["d0", "d1"], 2000)
        snapshot = Layout(node.data_dir).snapshot
        for number in range(ROUNDS):
            to = tmp_path / f"b{number}{'.tar' if number % 2 else ''}"
            killed(node, rng, "backup", str(to))
            wait_until(lambda: not snapshot.exists(), what="the snapshot is gone")
            if to.exists():  # then it is whole
                whole = Node(tmp_path / f"r{number}")
                ok(whole, "restore", str(to))
                audit_stopped(whole, record)
            else:
                ok(node, "backup", str(to))
        backup = to
        assert not list(tmp_path.glob("*.partial"))
        audit(node, record)
        assert node.stop() == 0
    for number in range(ROUNDS):
        new = Node(tmp_path / "new")
        killed(new, rng, "restore", str(backup))
        if Layout(new.data_dir).unfinished.exists():
            done = new.cli("serve", "--mqtt-port", "0", "--http-port", "0")
            assert done.returncode == 1
            assert f"run 'tbfast restore {backup}" in done.stderr
            ok(new, "restore", str(backup))
        elif not (new.data_dir / "registry").exists():
            shutil.rmtree(new.data_dir, ignore_errors=True)
            ok(new, "restore", str(backup))
        audit_stopped(new, record)
        if number == 0:
            with running_node(new.data_dir) as started:
                audit(started, record)
        shutil.rmtree(new.data_dir)


def test_a_killed_controller_leaves_no_snapshot(tmp_path: Path) -> None:
    with running_node(tmp_path / "data") as node:
        snapshot = Layout(node.data_dir).snapshot
        with node.api() as api, api.snapshot():
            assert snapshot.is_dir()
            pid = node.controller_pid()
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: node.controller_pid() not in (0, pid), 20)
            node.wait_ready()
            assert not snapshot.exists()
