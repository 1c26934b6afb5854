"""Printing for people (a table on a terminal), for pipes (tabs) and for programs (JSON)."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

import msgspec


def printable(text: str) -> str:
    """Text with everything a terminal would obey or that breaks a line written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def time_text(ts_ms: int) -> str:
    """Unix milliseconds as UTC, or as they are when no calendar holds them."""
    try:
        return datetime.fromtimestamp(ts_ms / 1000, UTC).isoformat(" ", "milliseconds")[:-6]
    except (ValueError, OverflowError, OSError):
        return str(ts_ms)


def line(text: str) -> None:
    """One line on standard output, whatever the terminal's encoding."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def json_line(value: object) -> None:
    """A value as one line of JSON; Raw and bytes-free structs only."""
    sys.stdout.flush()
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


@contextlib.contextmanager
def bar(what: str, unit: str = "bytes") -> Iterator[Callable[[int, int], None]]:
    """Shows how many of how many are done, on a terminal's standard error; else nothing."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich import progress
    from rich.console import Console

    count = progress.DownloadColumn() if unit == "bytes" else progress.MofNCompleteColumn()
    shown = progress.Progress(
        progress.TextColumn("{task.description}"), progress.BarColumn(), count,
        progress.TimeRemainingColumn(), console=Console(stderr=True), transient=True,
    )  # fmt: skip
    with shown:
        task = shown.add_task(what, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows under a heading; without a terminal just the rows, separated by tabs."""
    if not sys.stdout.isatty():
        for row in rows:
            line("\t".join(printable(cell) for cell in row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(shown)
