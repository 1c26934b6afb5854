"""Print stored telemetry of a device, newest first.

With --json: {"key":[{"ts":..,"value":..},..],..}, values in their JSON type.
"""

import argparse
from typing import Final

import msgspec

from tbfast.cli import exits, output, target
from tbfast.cli.exits import UsageError

DEFAULT_LIMIT: Final = 100


class _Point(msgspec.Struct):
    ts: int
    value: msgspec.Raw


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Device, keys and time range."""
    parser.add_argument("device", metavar="DEVICE", help="name or id")
    parser.add_argument("--keys", metavar="A,B", help="only these keys (default: all)")
    parser.add_argument("--start", type=int, metavar="MS", help="Unix ms, inclusive")
    parser.add_argument("--end", type=int, metavar="MS", help="Unix ms, exclusive")
    parser.add_argument(
        "--limit",
        type=int,
        default=DEFAULT_LIMIT,
        metavar="N",
        help=f"points per key (default: {DEFAULT_LIMIT})",
    )
    target.add_target_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Ask once and print."""
    if args.limit < 1:
        raise UsageError("--limit must be at least 1")
    keys = None
    if args.keys is not None:
        keys = list(dict.fromkeys(key for key in args.keys.split(",") if key))
        if not keys:
            raise UsageError("--keys names no key")
    with target.opened(target.data_dir(args)) as where:
        text = where.history(where.find(args.device), keys, args.start, args.end, args.limit)
    if args.json:
        output.json_line(msgspec.Raw(text))
        return exits.DONE
    series = msgspec.json.decode(text, type=dict[str, list[_Point]])
    output.table(
        ("key", "time (UTC)", "value"),
        (
            (key, output.time_text(point.ts), bytes(point.value).decode())
            for key, points in series.items()
            for point in points
        ),
    )
    return exits.DONE
