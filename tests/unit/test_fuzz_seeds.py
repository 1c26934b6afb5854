"""Every decoder in C has a fuzz target with seeds that are kept, and what they say holds.

`make fuzz` goes on from there; here each seed runs once, on the sanitizer build under its checks.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.canaries import SANITIZED

EXT = Path(__file__).parents[2] / "ext"
TARGETS = sorted(EXT.glob("fuzz/fuzz_*.c"))
FLAGS = ["-std=c11", "-g", "-O0", f"-I{EXT / 'c'}"]
if SANITIZED:
    FLAGS += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# Functions that bytes of peers and of the store come in by; what they call comes with them.
DECODERS = {
    "tbf_block_open", "tbf_next_def", "tbf_next_record", "tbf_next_point",
    "tbf_chunk_open", "tbf_chunk_next", "tbf_cursor_open", "tbf_cursor_next", "tbf_page_open",
    "tbf_http_post", "tbf_http_request_read", "tbf_http_answer_read",
    "tbf_json_attributes", "tbf_json_telemetry", "tbf_stringify",
    "tbf_mqtt_ack", "tbf_mqtt_connack", "tbf_mqtt_connect", "tbf_mqtt_frame", "tbf_mqtt_publish",
    "tbf_mqtt_reason", "tbf_mqtt_suback", "tbf_mqtt_subscribe", "tbf_walk",
    "tbf_proto_load", "tbf_proto_print", "tbf_proto_rows", "tbf_proxy_read",
}  # fmt: skip


def _seeds(target: Path) -> list[Path]:
    return sorted((EXT / "fuzz" / "corpus" / target.stem.removeprefix("fuzz_")).glob("*"))


def _run(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return subprocess.run(
        command, cwd=directory, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The object files of all of ext/c."""
    directory = tmp_path_factory.mktemp("objects")
    built = _run(["gcc", *FLAGS, "-c", *map(str, EXT.glob("c/*.c"))], directory)
    assert built.returncode == 0, built.stderr
    return [str(path) for path in directory.glob("*.o")]


def test_every_decoder_has_a_target() -> None:
    declared = " ".join(path.read_text() for path in EXT.glob("c/*.h"))
    called = " ".join(path.read_text() for path in TARGETS)
    for name in DECODERS:
        assert re.search(rf"\b{name}\(", declared), f"{name} is gone"
        assert re.search(rf"\b{name}\(", called), f"{name} has no target"


@pytest.mark.parametrize("target", TARGETS, ids=lambda path: path.stem)
def test_seeds(target: Path, library: list[str], tmp_path: Path) -> None:
    seeds = _seeds(target)
    assert seeds
    driver = Path(__file__).parents[1] / "support" / "seed_driver.c"
    sources = [str(target), str(driver), *library]
    built = _run(["gcc", *FLAGS, "-o", "target", *sources, "-lm"], tmp_path)
    assert built.returncode == 0, built.stderr
    ran = _run(["./target", *map(str, seeds)], tmp_path)
    assert ran.returncode == 0, (ran.stdout.splitlines()[-1:], ran.stderr)
    assert len(ran.stdout.splitlines()) == len(seeds)
