"""Nothing acknowledged is lost, whatever is killed and whenever: judged by the devices' ledger."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.support.audit import audit, audit_stopped
from tests.support.ledger import Load, running_load
from tests.support.node import Node, running_node

SEED = int(os.environ.get("TBFAST_TEST_SEED", "0")) or random.SystemRandom().randrange(1 << 30)
ROUNDS = int(os.environ.get("TBFAST_TEST_FAULT_ROUNDS", "200"))
DEVICES = 24
KILLS_BEFORE_PARKING = 3  # of one process in a minute; one more and it would be close to parking


class Hurting:
    """Random faults, one at a time, under load; never so many that a process is parked."""

    def __init__(self, node: Node, load: Load, rng: random.Random) -> None:
        self._node = node
        self._load = load
        self._rng = rng
        self._deaths: dict[str, int] = {}

    def once(self) -> str:
        """Waits for full load, then a random while, then hurts."""
        self._load.wait_acked(300)
        self._pause(self._rng.uniform(0, 0.6))
        faults = [self.worker, self.worker, self.hang, self.controller, self.everything]
        if max(self._deaths.values(), default=0) >= KILLS_BEFORE_PARKING:
            faults = [self.everything]
        fault = self._rng.choice(faults)
        fault()
        return fault.__name__

    def worker(self) -> None:
        number = self._rng.randrange(self._node.workers)
        pid = self._node.kill_worker(number)
        self._count(f"worker-{number}")
        self._node.wait_replaced(number, pid, 5)

    def hang(self) -> None:
        number = self._rng.randrange(self._node.workers)
        pid = self._node.kill_worker(number, signal.SIGSTOP)
        self._count(f"worker-{number}")
        self._node.wait_replaced(number, pid, 10)

    def controller(self) -> None:
        os.kill(self._node.controller_pid(), signal.SIGKILL)
        self._count("controller")
        self._node.wait_ready()

    def everything(self) -> None:
        self._node.kill_all()
        self._deaths.clear()
        self._node.start()

    def _count(self, name: str) -> None:
        self._deaths[name] = self._deaths.get(name, 0) + 1

    def _pause(self, seconds: float) -> None:
        """Part of the fault: the moment is random, the load goes on."""
        signal.sigtimedwait([], seconds)


def hurt(tmp_path: Path, seed: int, *, rounds: int, seconds: float, durability: str) -> None:
    print(f"TBFAST_TEST_SEED={seed}")
    deadline = time.monotonic() + seconds
    with running_node(tmp_path / "data", durability=durability) as node:
        tokens = node.add_devices(DEVICES)
        with running_load(node.mqtt_port, tokens, http_port=node.http_port) as load:
            hurting = Hurting(node, load, random.Random(seed))
            faults = []
            while len(faults) < rounds and time.monotonic() < deadline:
                faults.append(hurting.once())
            record = load.finish()
        print(" ".join(faults))
        acked = audit(node, record)
        assert acked == load.acked
        assert node.stop() == 0
        audit_stopped(node, record)


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_kills_under_load(tmp_path: Path, durability: str) -> None:
    hurt(tmp_path, SEED, rounds=10, seconds=15, durability=durability)


@pytest.mark.fault_long
@pytest.mark.timeout(0)
@pytest.mark.parametrize("durability", ["disk", "process"])
def test_kills_under_load_for_long(tmp_path: Path, durability: str) -> None:
    for part in range(0, ROUNDS, 20):
        hurt(tmp_path / f"{part}", SEED + part, rounds=20, seconds=600, durability=durability)
