"""Whatever allocation fails in the storage path: MemoryError, nothing lost, nothing kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.canaries import SANITIZED
from tests.support.faulty_disk import preloaded

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(SANITIZED, reason="the sanitizer has an allocator of its own")
@pytest.mark.parametrize("work", ["taken_in", "restored", "read", "joined", "written"])
def test_one_allocation_after_the_other_fails(work: str, tmp_path: Path) -> None:
    shim = preloaded(Path(__file__).parents[1] / "support" / "memory_shim.c", tmp_path)
    env = {
        **os.environ,
        "LD_PRELOAD": str(shim),
        "PYTHONPATH": str(ROOT),
        "MALLOC_PERTURB_": "165",  # what is freed does not stay readable as it was
    }
    ran = subprocess.run(
        [sys.executable, "-m", "tests.support.no_memory", work],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 5  # allocations that could fail
