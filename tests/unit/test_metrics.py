"""Metrics pages: layout, writers in other processes, what is rendered, readiness."""

import contextlib
import os
import re
import signal

import pytest

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast.obs.catalogue import FAMILIES, REASONS
from tbfast.obs.metrics import NodeMetrics
from tbfast.obs.processes import usage

SAMPLE = re.compile(r'^([a-z0-9_]+)(?:\{((?:[a-z]+="[^"\\\n]*",?)+)\})? (-?[0-9.e+-]+)$')


def samples(node: NodeMetrics) -> dict[str, float]:
    """Series name with labels to value; every line must be valid text format."""
    found = {}
    for line in node.render().decode().splitlines():
        if line.startswith("# "):
            assert re.match(
                r"^# (HELP [a-z0-9_]+ .+|TYPE [a-z0-9_]+ (counter|gauge|histogram))$", line
            )
            continue
        match = SAMPLE.match(line)
        assert match, line
        series = line.rpartition(" ")[0]
        assert series not in found, f"{series} twice"
        found[series] = float(match[3])
    return found


def in_child(body) -> int:
    """Runs body in a forked process; its exit code."""
    pid = os.fork()
    if pid == 0:
        try:
            body()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_layout_words_are_in_their_areas_and_never_shared():
    used: dict[int, str] = {}
    for family in FAMILIES:
        size = words.HISTOGRAM_BUCKETS + 1 if family.kind == "histogram" else 1
        for series in family.series:
            for word in range(series.word, series.word + size):
                assert words.HEALTH_END <= word < words.SLOT_WORDS
                assert word not in used, f"{family.name} and {used[word]} share word {word}"
                used[word] = family.name
            is_gauge = words.GAUGES <= series.word < words.GAUGES_END
            assert is_gauge == (family.kind == "gauge"), family.name
    assert words.HISTOGRAM_STRIDE > words.HISTOGRAM_BUCKETS
    assert len(words.BUCKET_BOUNDS_NS) == words.HISTOGRAM_BUCKETS - 1


def test_names_follow_the_conventions():
    for family in FAMILIES:
        assert family.name.startswith("tbfast_")
        assert family.name.endswith("_total") == (family.kind == "counter")
        assert family.help.endswith(".")


def test_reason_words_match_their_numbers():
    for number, reason in enumerate(REASONS):
        assert getattr(words, f"REASON_{reason.upper()}") == number
    assert len(REASONS) <= words.REFUSED_HTTP - words.REFUSED_MQTT


@pytest.mark.parametrize("number", range(words.HISTOGRAM_BUCKETS))
def test_bucket_bounds_are_inclusive(number):
    bounds = (0, *words.BUCKET_BOUNDS_NS, 20_000_000_000)
    slot = words.Slot()
    slot.observe_seconds(words.ACK, (bounds[number] + 1) / 1e9)
    slot.observe_seconds(words.ACK, bounds[number + 1] / 1e9)
    counts = [slot.get(words.ACK + n) for n in range(words.HISTOGRAM_BUCKETS)]
    assert counts[number] == 2
    assert sum(counts) == 2


def test_odd_durations_are_counted_and_bounded():
    slot = words.Slot()
    for seconds in (-1.0, float("nan"), float("inf")):
        slot.observe_seconds(words.COMMIT, seconds)
    assert slot.get(words.COMMIT) == 2
    assert slot.get(words.COMMIT + words.HISTOGRAM_BUCKETS - 1) == 1


@pytest.mark.parametrize("word", [words.SLOT_WORDS, 2**32 - 1])
def test_words_outside_the_page_are_refused(word):
    slot = words.Slot()
    for call in (slot.add, slot.subtract, slot.get, lambda w: slot.put(w, 1)):
        with pytest.raises(IndexError):
            call(word)
    with pytest.raises(IndexError):
        slot.observe_seconds(words.SLOT_WORDS - words.HISTOGRAM_BUCKETS, 1.0)


def test_page_must_lie_in_the_buffer():
    memory = bytearray(2 * words.SLOT_BYTES)
    words.Slot(memory, 1).add(words.POINTS)
    for number in (-1, 2):
        with pytest.raises(ValueError, match="no slot"):
            words.Slot(memory, number)
    with pytest.raises(BufferError):
        words.Slot(bytes(words.SLOT_BYTES))


def test_other_processes_write_and_any_process_renders():
    node = NodeMetrics(["controller", "worker-0", "worker-1"])

    def work(name: str, points: int):
        def body():
            slot = node.slot(name)
            slot.begin(os.getpid())
            for _ in range(points):
                slot.add(words.POINTS)
            slot.put(words.CONNECTIONS_MQTT, points)
            slot.observe_seconds(words.COMMIT, 0.004)

        return body

    assert in_child(work("worker-0", 1000)) == 0
    assert in_child(work("worker-1", 234)) == 0
    found = samples(node)
    assert found["tbfast_points_total"] == 1234
    assert found['tbfast_connections{protocol="mqtt"}'] == 1234
    assert found['tbfast_commit_seconds_bucket{le="0.0025"}'] == 0
    assert found['tbfast_commit_seconds_bucket{le="0.005"}'] == 2
    assert found['tbfast_commit_seconds_bucket{le="+Inf"}'] == 2
    assert found["tbfast_commit_seconds_count"] == 2
    assert found["tbfast_commit_seconds_sum"] == pytest.approx(0.008)
    assert found['tbfast_up{process="worker-1"}'] == 1

    def check():
        assert samples(node)["tbfast_points_total"] == 1234

    assert in_child(check) == 0


def test_a_restarted_process_keeps_counters_and_starts_gauges_anew():
    node = NodeMetrics(["worker-0"])

    def first():
        slot = node.slot("worker-0")
        slot.begin(os.getpid())
        slot.add(words.POINTS, 5)
        slot.put(words.SESSIONS_MQTT, 7)
        slot.put(words.HEALTH_LISTENING, 1)
        slot.put(words.HEALTH_JOURNAL_OPEN, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(first) == -signal.SIGKILL
    assert node.ready()
    slot = node.slot("worker-0")
    slot.end()
    slot.add(words.RESTARTS)
    assert node.unready() == ["worker-0 is not running"]
    found = samples(node)
    assert found["tbfast_points_total"] == 5
    assert found['tbfast_sessions{protocol="mqtt"}'] == 0
    assert found['tbfast_restarts_total{process="worker-0"}'] == 1
    assert in_child(lambda: (slot.begin(os.getpid()), slot.add(words.POINTS, 2))) == 0
    assert samples(node)["tbfast_points_total"] == 7
    assert samples(node)['tbfast_restarts_total{process="worker-0"}'] == 1


def test_ready_needs_every_worker_and_no_controller():
    node = NodeMetrics(["controller", "worker-0", "worker-1"])
    for name in ("worker-0", "worker-1"):
        slot = node.slot(name)
        slot.begin(1)
        slot.put(words.HEALTH_JOURNAL_OPEN, 1)
        assert not node.ready()
        slot.put(words.HEALTH_LISTENING, 1)
    assert node.ready()
    node.slot("worker-1").put(words.HEALTH_JOURNAL_OPEN, 0)
    assert node.unready() == ["worker-1 has not opened its journal"]


def test_ready_ends_when_heartbeats_stop():
    node = NodeMetrics(["worker-0"])
    slot = node.slot("worker-0")
    slot.begin(1)
    slot.put(words.HEALTH_JOURNAL_OPEN, 1)
    slot.put(words.HEALTH_LISTENING, 1)
    slot.put(words.HEALTH_HEARTBEAT_MS, 100_000)
    assert node.ready(now_s=100 + limits.HEARTBEAT_STALE_MS / 1000)
    assert not node.ready(now_s=101 + limits.HEARTBEAT_STALE_MS / 1000)


def test_process_metrics_come_from_the_kernel():
    node = NodeMetrics(["worker-0"])
    node.slot("worker-0").begin(os.getpid())
    found = samples(node)
    assert found['process_resident_memory_bytes{process="worker-0"}'] > 1_000_000
    before = found['process_open_fds{process="worker-0"}']
    with contextlib.ExitStack() as held:
        for _ in range(50):  # others of this process may close meanwhile
            held.enter_context(open("/dev/null", "rb"))
        assert samples(node)['process_open_fds{process="worker-0"}'] > before + 25
    assert usage(2**22 - 1) is None
