"""Logs: form, limits, secrets, and a reader of standard error that stops reading."""

import json
import logging
import os
import threading
import time

import pytest

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast.obs import log as log_module
from tbfast.obs.log import get_logger, setup, shutdown_logging
from tbfast.obs.ratelimit import RateLimiter

log = get_logger("tbfast.test")


@pytest.fixture
def captured():
    """Starts logging to a pipe; the returned function ends it and gives the lines."""
    ends = []

    def begin(form="text", level="debug", **options):
        read_fd, write_fd = os.pipe()
        ends.extend((read_fd, write_fd))
        setup(level, form, "worker-0", fd=write_fd, **options)

        def lines() -> list[str]:
            shutdown_logging()
            os.close(write_fd)
            ends.remove(write_fd)
            with os.fdopen(ends.pop(), "r") as file:
                return file.read().splitlines()

        return lines

    root = logging.getLogger()
    level = root.level
    yield begin
    shutdown_logging()
    root.setLevel(level)
    for fd in ends:
        os.close(fd)


def test_text_line(captured):
    lines = captured()
    log.info("worker ready", worker=3, epoch=None, fresh=True, note='a "b" c')
    [line] = lines()
    stamp, _, rest = line.partition(" ")
    assert time.strptime(stamp, "%Y-%m-%dT%H:%M:%S." + stamp[-4:-1] + "Z")
    assert rest == (
        'INFO    worker-0 tbfast.test: worker ready worker=3 epoch=- fresh=true note="a \\"b\\" c"'
    )


def test_json_line(captured):
    lines = captured("json")
    log.warning("odd %s event", worker=3, peer=b"\x00\n\xff", level="taken")
    record = json.loads(lines()[0])
    record.pop("ts")
    assert record == {
        "level": "warning", "process": "worker-0", "logger": "tbfast.test",
        "event": "odd %s event", "worker": 3, "peer": "\\x00\\x0a\\xff", "level_": "taken",
    }  # fmt: skip


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_never_appear(captured, form):
    lines = captured(form)
    log.error("refused", token="s3cret", password=b"s3cret", payload={"a": "s3cret"})
    [line] = lines()
    assert "s3cret" not in line
    assert line.count("[hidden]") == 3


@pytest.mark.parametrize("form", ["text", "json"])
def test_one_event_is_one_line_without_control_characters(captured, form):
    lines = captured(form)
    log.info("name", device="a\nERROR forged\x1b[2J\u2028\x9b")
    logging.getLogger("library").warning("forged %s", "x\ny")
    found = lines()
    assert len(found) == 2
    assert all(line.isprintable() for line in found)


def test_traceback_is_shown_and_indented(captured):
    lines = captured()
    try:
        raise ValueError("inner\nforged")
    except ValueError:
        log.exception("failed", step=1)
    first, *rest = lines()
    assert first.endswith("failed step=1")
    assert rest[-1] == "    forged"
    assert all(line.startswith("    ") for line in rest)


@pytest.mark.parametrize("form", ["text", "json"])
def test_long_lines_are_cut(captured, form):
    lines = captured(form)
    log.info("long", a="é" * 100_000, b="x" * 100_000)
    [line] = lines()
    assert len(line.encode()) < limits.LOG_LINE_BYTES
    if form == "json":
        assert json.loads(line)["cut"] is True


def test_level_is_respected(captured):
    lines = captured(level="warning")
    log.info("quiet")
    log.limited("quiet", logging.INFO, "quiet")
    log.warning("loud")
    assert [line.split()[-1] for line in lines()] == ["loud"]


def test_a_value_that_cannot_be_shown_does_not_raise(captured):
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("odd")

    lines = captured()
    log.info("event", value=Odd())
    assert "log record cannot be written" in lines()[0]


def test_limited_lines_and_their_count(captured, monkeypatch):
    slot = words.Slot()
    lines = captured(slot=slot)
    now = 100.0
    monkeypatch.setattr(log_module.time, "monotonic", lambda: now)
    for _ in range(25):
        log.limited("malformed", logging.WARNING, "packet refused")
    now = 101.0
    log.limited("malformed", logging.WARNING, "packet refused")
    found = lines()
    assert len(found) == limits.LOG_LINES_PER_SECOND + 1
    assert found[-1].endswith("reason=malformed suppressed=15")
    assert slot.get(words.LOG_SUPPRESSED) == 15


def test_limiter_counts_reasons_apart_and_bounds_them():
    limiter = RateLimiter(per_second=1)
    assert limiter.admit("a", 5.0) == 0
    assert limiter.admit("b", 5.1) == 0
    assert limiter.admit("a", 5.9) is None
    assert limiter.drain(5.9) == []
    assert limiter.drain(6.0) == [("a", 1)]
    assert limiter.admit("a", 6.0) == 0
    for number in range(limits.LOG_REASONS):
        limiter.admit(f"reason {number}", 7.0)
    assert limiter.admit("one more", 7.0) is None


@pytest.mark.parametrize("threaded", [True, False])
def test_a_blocked_reader_never_blocks_the_logger(captured, threaded):
    slot = words.Slot()
    captured(slot=slot, threaded=threaded)
    done = threading.Event()

    def flood():
        for number in range(5_000):
            log.error("line", number=number, filler="x" * 200)
        done.set()

    thread = threading.Thread(target=flood, daemon=True)
    thread.start()
    assert done.wait(30), "the logging thread is blocked"
    assert slot.get(words.LOG_DROPPED) > 1_000
    thread.join()


def test_dropped_lines_are_reported_once_the_reader_is_back(captured):
    read_fd, write_fd = os.pipe()
    try:
        setup("debug", "text", "supervisor", fd=write_fd)
        for number in range(2_000):
            log.info("line", number=number, filler="x" * 200)
        os.read(read_fd, 1 << 20)
        log.info("back")
        text = os.read(read_fd, 1 << 20).decode()
    finally:
        shutdown_logging()
        os.close(read_fd)
        os.close(write_fd)
    assert "back" in text
    assert "log lines dropped" in text


def test_a_closed_reader_is_survived(captured):
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    setup("debug", "text", "worker-0", fd=write_fd)
    log.info("nobody")
    shutdown_logging()
    os.close(write_fd)


def test_setup_after_fork_starts_its_own_writer(captured):
    lines = captured()
    log.info("parent")
    pid = os.fork()
    if pid == 0:
        try:
            handler = log_module._handler
            setup("info", "text", "worker-1", fd=handler._sink._fd)
            log.info("child")
            shutdown_logging()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    found = sorted(line.split(" ", 1)[1].strip() for line in lines())
    assert found == ["INFO    worker-0 tbfast.test: parent", "INFO    worker-1 tbfast.test: child"]
