"""Write stored telemetry to a file: CSV, JSON lines or Parquet.

One row a point, by device, key and time, oldest first.  Works on a running server and on a stopped
one; memory stays bounded however much there is.  The file appears under its name when it is whole.
A device that is removed meanwhile is named on standard error and left out.

CSV has the columns device, key, ts (Unix ms) and value as JSON text.  Parquet has typed ones: ts,
and of long, double, bool and text the one that holds the value; it needs: pip install
'tbfast[parquet]'
"""

import argparse
import contextlib
import csv
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, Protocol

import msgspec

from tbfast.cli import exits, output, ranges, target
from tbfast.cli.devices import DeviceView
from tbfast.cli.exits import UsageError
from tbfast.cli.target import Target
from tbfast.errors import LocalError, NotFound, PeerError, TbfastError
from tbfast.model.ranges import RangeQuery

FIRST_POINTS: Final = 1_000  # of each key, asked for at once
PAGE_POINTS: Final = 100_000  # of one key, held at once
GROUP_POINTS: Final = 100_000  # of a row group of Parquet, or a little more
GROUP_BYTES: Final = 16 << 20  # of its values as text, likewise


class Point(msgspec.Struct):
    """A stored value, as JSON text."""

    ts: int
    value: msgspec.Raw


class _Row(msgspec.Struct):
    device: str
    key: str
    ts: int
    value: msgspec.Raw


class _Done(msgspec.Struct):
    path: str
    devices: int
    rows: int


class Writer(Protocol):
    """One format."""

    def rows(self, device: str, key: str, points: Sequence[Point]) -> None:
        """Points of one series, oldest first."""

    def close(self) -> None:
        """Writes what is left."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What, from when to when, and where to."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--device", action="append", metavar="DEVICE", help="name or id; may be repeated"
    )
    which.add_argument("--profile", metavar="NAME", help="all devices of a profile")
    which.add_argument("--all", action="store_true", help="all devices")
    parser.add_argument("--keys", metavar="A,B", help="only these keys (default: all)")
    ranges.add_range_flags(parser)
    parser.add_argument(
        "--format", choices=tuple(_WRITERS), help="default: by the name of the file, else csv"
    )
    parser.add_argument(
        "--output", required=True, metavar="FILE", help="replaced if it exists; - = standard output"
    )
    target.add_target_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Device by device, key by key, page by page."""
    ranges.check_range(args)
    keys = None
    if args.keys is not None:
        keys = tuple(dict.fromkeys(key for key in args.keys.split(",") if key))
        if not keys:
            raise UsageError("--keys names no key")
    named = Path(args.output).suffix.removeprefix(".")
    form = args.format or (named if named in _WRITERS else "csv")
    query = RangeQuery(keys=keys, start_ms=args.start, end_ms=args.end, limit=1, ascending=True)
    done = _Done(args.output, 0, 0)
    with (
        target.opened(args) as where,
        output.bar("exporting", unit="devices") as progress,
    ):
        devices = _devices(where, args)
        with _file(args.output) as file:
            writer = _WRITERS[form](file)
            for seen, device in enumerate(devices):
                progress(seen, len(devices))
                try:
                    for key, points in _pages(where, device, query):
                        writer.rows(device.name, key, points)
                        done.rows += len(points)
                except NotFound:
                    name = output.printable(device.name)
                    print(f"{name} was removed meanwhile: not all of it is there", file=sys.stderr)
                else:
                    done.devices += 1
            writer.close()
    if args.json:
        print(msgspec.json.encode(done).decode(), file=_talk(args))
    else:
        text = f"{output.printable(args.output)}: {done.rows} points of {done.devices} devices"
        print(text, file=_talk(args))
    return exits.DONE


def _talk(args: argparse.Namespace) -> IO[str]:
    return sys.stderr if args.output == "-" else sys.stdout


def _devices(where: Target, args: argparse.Namespace) -> list[DeviceView]:
    if args.device:
        return [where.find(text) for text in args.device]
    found = [d for d in where.devices("") if args.all or d.type == args.profile]
    if not found and args.profile and args.profile not in {p.name for p in where.profiles()}:
        raise NotFound(f"there is no device profile {args.profile!r}")
    return found


def _pages(
    where: Target, device: DeviceView, query: RangeQuery
) -> Iterator[tuple[str, list[Point]]]:
    """Points of one key at a time; together those of all keys, where they are few."""
    firsts, asked = _history(where, device, query, FIRST_POINTS)
    for key in sorted(firsts):
        points, most = firsts.pop(key), asked
        while points:
            yield key, points
            if len(points) < most or points[-1].ts == ranges.INT64[-1]:
                break
            rest = msgspec.structs.replace(query, keys=(key,), start_ms=points[-1].ts + 1)
            found, most = _history(where, device, rest, PAGE_POINTS)
            points = found.get(key, [])


def _history(
    where: Target, device: DeviceView, query: RangeQuery, most: int
) -> tuple[dict[str, list[Point]], int]:
    """At most so many points of each key; or fewer, how many: an answer has a bound."""
    while True:
        try:
            text = where.history(device, msgspec.structs.replace(query, limit=most))
        except TbfastError as error:
            if most == 1 or not _too_long(error):
                raise
            most = max(1, most // 8)
            continue
        return msgspec.json.decode(text, type=dict[str, list[Point]]), most


def _too_long(error: TbfastError) -> bool:
    """Whether fewer points may help: a running server says 400."""
    return isinstance(error, PeerError) or error.code == 400


@contextlib.contextmanager
def _file(name: str) -> Iterator[IO[bytes]]:
    """Under its name once it is whole and on disk; pipes and devices are written as they are."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with _stream(Path(name)) if _is_special(Path(name)) else _whole(Path(name)) as file:
            yield file
    except BrokenPipeError:
        raise  # its reader has what it wanted
    except OSError as error:
        raise LocalError(f"cannot write {name}: {error.strerror}") from error


def _is_special(path: Path) -> bool:
    """Whether a path names what must not be replaced by a file."""
    return path.exists() and not path.is_file()


def _stream(path: Path) -> IO[bytes]:
    return open(path, "wb")


@contextlib.contextmanager
def _whole(named: Path) -> Iterator[IO[bytes]]:
    path = named.resolve()  # a symbolic link stays one
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


class _Csv:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._text = io.StringIO()
        self._csv = csv.writer(self._text, lineterminator="\n")
        self._csv.writerow(("device", "key", "ts", "value"))

    def rows(self, device: str, key: str, points: Sequence[Point]) -> None:
        self._csv.writerows((device, key, p.ts, bytes(p.value).decode()) for p in points)
        self.close()

    def close(self) -> None:
        self._file.write(self._text.getvalue().encode())
        self._text.seek(0)
        self._text.truncate()


class _JsonLines:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._encoder = msgspec.json.Encoder()

    def rows(self, device: str, key: str, points: Sequence[Point]) -> None:
        rows = [_Row(device, key, p.ts, p.value) for p in points]
        self._file.write(self._encoder.encode_lines(rows))

    def close(self) -> None:
        """Nothing is held."""


class _Parquet:
    def __init__(self, file: IO[bytes]) -> None:
        try:
            import pyarrow  # type: ignore[import-not-found,import-untyped,unused-ignore]
            from pyarrow import parquet
        except ImportError as error:
            raise LocalError(
                "Parquet needs pyarrow, which is not installed: pip install 'tbfast[parquet]', "
                "or choose --format csv or jsonl"
            ) from error
        self._arrow: Any = pyarrow
        self._schema = pyarrow.schema(
            [
                ("device", pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
                ("key", pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
                ("ts", pyarrow.timestamp("ms", tz="UTC")),
                ("long", pyarrow.int64()),
                ("double", pyarrow.float64()),
                ("bool", pyarrow.bool_()),
                ("text", pyarrow.string()),
            ]
        )
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")

        self._held: list[tuple[str, str, Sequence[Point]]] = []
        self._points = self._bytes = 0

    def rows(self, device: str, key: str, points: Sequence[Point]) -> None:
        # Series are small, a row group costs kilobytes.
        self._held.append((device, key, points))
        self._points += len(points)
        self._bytes += sum(len(bytes(p.value)) for p in points)
        if self._points >= GROUP_POINTS or self._bytes >= GROUP_BYTES:
            self._write()

    def _write(self) -> None:
        held = [(device, key, p) for device, key, points in self._held for p in points]
        values = [msgspec.json.decode(p.value) for _, _, p in held]
        texts = [
            v if isinstance(v, str) else bytes(p.value).decode() if _is_text(v) else None
            for v, (_, _, p) in zip(values, held, strict=True)
        ]
        columns = {
            "device": [device for device, _, _ in held],
            "key": [key for _, key, _ in held],
            "ts": [p.ts for _, _, p in held],
            "long": [v if type(v) is int and v in ranges.INT64 else None for v in values],
            "double": [v if type(v) is float else None for v in values],
            "bool": [v if type(v) is bool else None for v in values],
            "text": texts,
        }
        self._writer.write_table(self._arrow.table(columns, schema=self._schema))
        self._held.clear()
        self._points = self._bytes = 0

    def close(self) -> None:
        if self._held:
            self._write()
        self._writer.close()


def _is_text(value: object) -> bool:
    """JSON documents, and integers that no int64 holds."""
    return isinstance(value, dict | list) or (type(value) is int and value not in ranges.INT64)


_WRITERS: Final[dict[str, Callable[[IO[bytes]], Writer]]] = {
    "csv": _Csv,
    "jsonl": _JsonLines,
    "parquet": _Parquet,
}
