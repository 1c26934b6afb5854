"""tbfast bench as its users run it, on a server of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tbfast.loadgen.result import Result
from tests.support.server import Server
from tests.support.stub_broker import stub_broker

ROOT = Path(__file__).parents[2]
RESULT_FIELDS = set(Result.__struct_fields__)


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tbfast", "bench", "--warmup", "0.1", "--duration", "0.5", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_devices_are_created_and_every_acknowledged_row_is_stored(
    own_server: Server, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    where = ("--data-dir", str(own_server.data_dir), "--connections", "20")
    done = bench(*where, "--json", "--ledger", str(ledger))
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result.keys() == RESULT_FIELDS
    assert result["messages"] > 0
    assert result["server"]["cpu_us_per_message"] > 0

    acknowledged = {
        row["ts"] for line in ledger.read_text().splitlines()
        if (row := json.loads(line))["token"] == "bench-7"
    }  # fmt: skip
    assert acknowledged
    stored = own_server.query("bench-7", "ok", limit=len(acknowledged) + 1_000)["ok"]
    assert acknowledged <= {point["ts"] for point in stored}

    # Again: the devices exist.
    done = bench(*where, "--rate", "500", "--mqtt", "5")
    assert (done.returncode, done.stderr) == (0, "")
    assert "20 connections, 500 messages/s over all of them, QoS 1, MQTT 5" in done.stdout
    assert "p99.9" in done.stdout


def test_no_server(tmp_path: Path) -> None:
    done = bench("--data-dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("tbfast: no server runs on ")


def test_trouble_fails_and_is_named(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("A\nB\n")
    with stub_broker(drop_every=3) as broker:
        done = bench("--port", str(broker.port), "--connections", "2", "--tokens", str(tokens))
    assert done.returncode == 1
    assert "connections lost\t2\n" in done.stdout
    assert {connect.username for connect in broker.connects} == {"A", "B"}


@pytest.mark.parametrize(
    "words",
    [("--connections", "0"), ("--qos", "0", "--ledger", "x"), ("--tokens", "/nonexistent"),
     ("--rate", "-1"), ("--idle", "--rate", "5")],
)  # fmt: skip
def test_wrong_usage(words: tuple[str, ...]) -> None:
    done = bench("--port", "1", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("tbfast: ")
