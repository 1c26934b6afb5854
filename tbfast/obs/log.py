"""Structured logs on top of the standard library: one event, fixed words, fields beside it.

    log = get_logger("tbfast.worker")
    log.info("worker ready", worker=3, epoch=17)
    log.limited("malformed", logging.WARNING, "packet refused", peer=escape_peer(data))

Levels: DEBUG normal, INFO expected peer trouble, WARNING misbehaving peer (through `limited`),
ERROR our fault.  Text or JSON, one line an event, to standard error; lines are dropped and counted
rather than ever blocking the caller.
"""

import atexit
import json
import logging
import os
import time
from typing import Any, Final

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast._ext.metrics import Slot
from tbfast.obs.escape import plain_field, printable
from tbfast.obs.ratelimit import RateLimiter
from tbfast.obs.sink import DirectSink, ThreadedSink

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_LEVEL_WORDS: Final = {number: word for word, number in LEVELS.items()}
_RESERVED: Final = frozenset(("ts", "level", "process", "logger", "event", "exception"))
_STDERR: Final = 2
_CLOSE_S: Final = 1.0  # longest wait for a reader of standard error at exit

_limiter = RateLimiter()


class Logger:
    """Logs events with fields under one name of the standard library's tree."""

    __slots__ = ("_log",)

    def __init__(self, name: str) -> None:
        self._log = logging.getLogger(name)

    def debug(self, event: str, /, **fields: Any) -> None:
        """Normal course of things."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, /, **fields: Any) -> None:
        """What an operator likes to know; expected trouble with a peer."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        """Something to look at; about peers use `limited`."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        """Our fault or the machine's; ``exc_info=True`` adds the current exception."""
        self._write(logging.ERROR, event, fields)

    def exception(self, event: str, /, **fields: Any) -> None:
        """An error with the current exception."""
        self._write(logging.ERROR, event, {**fields, "exc_info": True})

    def limited(self, reason: str, level: int, event: str, /, **fields: Any) -> None:
        """As the others, at most LOG_LINES_PER_SECOND a second for each reason, a fixed word.

        The next line that is written says how many were left out.
        """
        if not self._log.isEnabledFor(level):
            return
        suppressed = _limiter.admit(reason, time.monotonic())
        if suppressed is None:
            _count(words.LOG_SUPPRESSED)
            return
        if suppressed:
            fields["suppressed"] = suppressed
        self._write(level, event, {"reason": reason, **fields})

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if self._log.isEnabledFor(level):
            exc_info = fields.pop("exc_info", None)
            # As an argument, so that a % in the event is not taken for a format.
            self._log.log(level, "%s", event, exc_info=exc_info, extra={"fields": fields})


def get_logger(name: str) -> Logger:
    """The logger of a module; names start with ``tbfast.``."""
    return Logger(name)


class _Handler(logging.Handler):
    """Formats in the caller's thread, writes through the sink, counts what is dropped."""

    def __init__(self, form: str, process: str, slot: Slot | None, threaded: bool, fd: int) -> None:
        super().__init__()
        self._as_json = form == "json"
        self._process = process
        self.pid = os.getpid()
        self.slot = slot
        self._dropped = 0
        self._sink = ThreadedSink(fd, self._tick, self._lost) if threaded else DirectSink(fd)

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises and never blocks."""
        try:
            line = self._line(
                record.created,
                record.levelno,
                record.name,
                record.getMessage(),
                getattr(record, "fields", {}),
                _traceback(record),
            )
        except Exception as error:  # noqa: BLE001  # a field's __str__, a bad format in a library
            line = self._own("log record cannot be written", {"of": record.name, "error": error})
        if not self._sink.write(line):
            self._dropped += 1
            _count(words.LOG_DROPPED)
        elif self._dropped and isinstance(self._sink, DirectSink):
            for extra in self._tick():
                self._sink.write(extra)

    def _lost(self) -> None:
        self.acquire()  # against `emit` in another thread
        self._dropped += 1
        self.release()
        _count(words.LOG_DROPPED)

    def close(self) -> None:
        """Writes what is queued, for at most a second."""
        self._sink.close(_CLOSE_S)
        super().close()

    def _tick(self) -> list[bytes]:
        """Counts of lines nobody saw, once it is quiet again."""
        lines = [
            self._own("log lines left out", {"reason": reason, "suppressed": count})
            for reason, count in _limiter.drain(time.monotonic())
        ]
        self.acquire()  # against `emit` in another thread
        dropped, self._dropped = self._dropped, 0
        self.release()
        if dropped:
            lines.append(self._own("log lines dropped: nobody read them", {"dropped": dropped}))
        return lines

    def _own(self, event: str, fields: dict[str, Any]) -> bytes:
        return self._line(time.time(), logging.WARNING, __name__, event, fields, "")

    def _line(
        self, at: float, level: int, logger: str, event: str, fields: dict[str, Any], trace: str
    ) -> bytes:
        stamp = (
            time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at * 1000) % 1000:03}Z"
        )
        word = _LEVEL_WORDS.get(level, logging.getLevelName(level).lower())
        plain = {
            name + "_" if name in _RESERVED else name: plain_field(name, value)
            for name, value in fields.items()
        }
        form = _json_line if self._as_json else _text_line
        return form(stamp, word, self._process, logger, event, plain, trace)


def _json_line(
    stamp: str,
    level: str,
    process: str,
    logger: str,
    event: str,
    fields: dict[str, Any],
    trace: str,
) -> bytes:
    members = {"ts": stamp, "level": level, "process": process, "logger": logger, "event": event}
    if trace:
        fields = {**fields, "exception": trace}
    line = json.dumps({**members, **fields})
    if len(line) >= limits.LOG_LINE_BYTES:
        # Cut values, not the line: what a collector reads must stay JSON.
        share = limits.LOG_LINE_BYTES // (8 * (len(fields) + 1))
        short = {k: v[:share] if isinstance(v, str) else v for k, v in fields.items()}
        line = json.dumps({**members, "event": event[:share], **short, "cut": True})
    return line.encode() + b"\n"


def _text_line(
    stamp: str,
    level: str,
    process: str,
    logger: str,
    event: str,
    fields: dict[str, Any],
    trace: str,
) -> bytes:
    parts = [stamp, level.upper().ljust(7), process, f"{logger}:", printable(event)]
    parts += (f"{name}={_text_value(value)}" for name, value in fields.items())
    text = " ".join(parts)
    if trace:
        text += "".join(f"\n    {printable(line)}" for line in trace.splitlines())
    line = text.encode("utf-8", "backslashreplace")
    if len(line) >= limits.LOG_LINE_BYTES:
        line = line[: limits.LOG_LINE_BYTES - 5].decode("utf-8", "ignore").encode() + b" ..."
    return line + b"\n"


def _text_value(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = printable(str(value))
    if isinstance(value, str) and (not text or any(c in text for c in ' "=')):
        return '"' + text.replace('"', '\\"') + '"'
    return text


def _traceback(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    return _FORMATTER.formatException(record.exc_info)


_FORMATTER: Final = logging.Formatter()
_handler: _Handler | None = None


def setup(
    level: str,
    format: str,
    process: str,
    *,
    slot: Slot | None = None,
    threaded: bool | None = None,
    fd: int = _STDERR,
) -> None:
    """Sends this process's logs to standard error; call it again after each fork.

    level: a key of LEVELS.  format: ``text`` or ``json``.  slot: where suppressed and dropped
    lines are counted.  threaded: by default every process but the supervisor, which forks and
    therefore has no threads.
    """
    global _handler, _limiter
    root = logging.getLogger()
    if _handler is not None and _handler.pid == os.getpid():
        shutdown_logging()
    elif _handler is not None:
        root.removeHandler(_handler)  # forked: its thread lives in the parent only, never join it
    _limiter = RateLimiter()
    if threaded is None:
        threaded = process != "supervisor"
    _handler = _Handler(format, process, slot, threaded, fd)
    root.addHandler(_handler)
    root.setLevel(LEVELS[level])


def shutdown_logging() -> None:
    """Writes what is queued, for at most a second; later lines are lost."""
    global _handler
    if _handler is not None:
        logging.getLogger().removeHandler(_handler)
        _handler.close()
        _handler = None


def _count(word: int) -> None:
    if _handler is not None and _handler.slot is not None:
        _handler.slot.add(word)


atexit.register(shutdown_logging)
