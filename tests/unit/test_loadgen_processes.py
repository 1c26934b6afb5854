"""CPU and memory of a tree of processes, as the kernel counts them."""

import os
import subprocess
import sys
import threading

from tbfast.loadgen import processes
from tests.support.waiting import wait_until

MIB = 1 << 20
# Takes 64 MiB and 0.2 s of CPU, says so, and waits for the end of its input.
CHILD = """
import sys, time
block = bytearray(b"x") * (64 << 20)
while time.process_time() < 0.2: pass
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_child_is_counted() -> None:
    me = (os.getpid(),)
    cpu, memory = processes.cpu_ns(me), processes.memory(me)
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE)  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    assert child.pid in processes.with_children(me)
    assert processes.spent_ns(cpu, processes.cpu_ns(me)) > 150e6
    assert processes.memory(me).rss - memory.rss > 60 * MIB
    assert processes.memory(me).pss > 60 * MIB
    child.communicate()
    assert child.pid not in processes.with_children(me)


def test_threads_are_counted() -> None:
    me = (os.getpid(),)
    before = processes.cpu_ns(me)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            pass

    thread = threading.Thread(target=work)
    thread.start()
    try:
        wait_until(lambda: processes.spent_ns(before, processes.cpu_ns(me)) > 50e6)
    finally:
        stop.set()
        thread.join()


def test_what_is_gone_counts_as_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert processes.cpu_ns((child.pid,)) == {}
    assert processes.memory((child.pid,)) == (0, 0)
    assert processes.spent_ns({(1, "1"): 500, (1, "2"): 7}, {(1, "1"): 900}) == 400
