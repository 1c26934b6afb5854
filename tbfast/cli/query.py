"""Print stored telemetry of a device, newest first, or aggregated by interval.

With --json: {"key":[{"ts":..,"value":..},..],..}, values in their JSON type.
"""

import argparse
from typing import Final

import msgspec

from tbfast.cli import exits, output, ranges, target
from tbfast.cli.exits import UsageError
from tbfast.errors import PeerError
from tbfast.model.ranges import RangeQuery, bucket_bounds

DEFAULT_LIMIT: Final = 100


class _Point(msgspec.Struct):
    ts: int
    value: msgspec.Raw


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Device, keys and time range."""
    parser.add_argument("device", metavar="DEVICE", help="name or id")
    parser.add_argument("--keys", metavar="A,B", help="only these keys (default: all)")
    ranges.add_range_flags(parser)
    parser.add_argument(
        "--limit",
        type=int,
        default=DEFAULT_LIMIT,
        metavar="N",
        help=f"points per key (default: {DEFAULT_LIMIT})",
    )
    parser.add_argument(
        "--order", choices=("desc", "asc"), default="desc", help="newest first (default) or last"
    )
    parser.add_argument(
        "--agg",
        choices=("min", "max", "avg", "sum", "count"),
        help="one value per interval, oldest first; needs --interval, --start and --end",
    )
    parser.add_argument(
        "--interval",
        metavar="MS|WORD",
        help="length in ms, or week (from Sunday), week_iso, month, quarter",
    )
    parser.add_argument(
        "--time-zone", default="UTC", metavar="ZONE", help="of calendar intervals (default: UTC)"
    )
    target.add_target_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Ask once and print."""
    if args.limit < 1:
        raise UsageError("--limit must be at least 1")
    if args.limit not in ranges.INT64:
        raise UsageError(f"--limit must be at most {ranges.INT64[-1]}")
    ranges.check_range(args)
    query = _query(args)
    with target.opened(args) as where:
        text = where.history(where.find(args.device), query)
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


def _query(args: argparse.Namespace) -> RangeQuery:
    keys = None
    if args.keys is not None:
        keys = tuple(dict.fromkeys(key for key in args.keys.split(",") if key))
        if not keys:
            raise UsageError("--keys names no key")
    query = RangeQuery(
        keys=keys,
        start_ms=args.start,
        end_ms=args.end,
        limit=args.limit,
        ascending=args.order == "asc",
    )
    if args.agg is None:
        if args.interval is not None:
            raise UsageError("--interval needs --agg")
        return query
    if args.interval is None or args.start is None or args.end is None:
        raise UsageError("--agg needs --interval, --start and --end")
    aggregated = msgspec.structs.replace(
        query, aggregation=args.agg.upper(), time_zone=args.time_zone, **_interval(args.interval)
    )
    try:
        bucket_bounds(aggregated)
    except PeerError as error:
        raise UsageError(str(error)) from error
    return aggregated


def _interval(text: str) -> dict[str, object]:
    if text in ("week", "week_iso", "month", "quarter"):
        return {"interval_type": text.upper()}
    if text.isascii() and text.isdecimal() and len(text) < 20 and 0 < int(text) < 1 << 63:
        return {"interval_ms": int(text)}
    raise UsageError("--interval must be a number of ms above 0, week, week_iso, month or quarter")
