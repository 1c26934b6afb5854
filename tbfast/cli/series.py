"""Delete stored telemetry of a device, on a running server.

What is deleted stays deleted; points that arrive later, with the same times even, are kept.  A
key whose newest point is deleted shows the newest that is left.
"""

import argparse
import sys
from typing import Final

import msgspec

from tbfast.cli import exits, output, ranges, target
from tbfast.cli.exits import UsageError
from tbfast.errors import TbfastError
from tbfast.model.ranges import RangeQuery

_KEYS_PER_REQUEST: Final = 100


class _Point(msgspec.Struct):
    ts: int


class _Deleted(msgspec.Struct):
    device: str
    keys: list[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The action with device, keys and time range."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    delete = actions.add_parser("delete", help="delete points by key and time")
    delete.add_argument("device", metavar="DEVICE", help="name or id")
    delete.add_argument("--keys", metavar="A,B", help="only these keys (default: all)")
    ranges.add_range_flags(delete)
    delete.add_argument("--yes", action="store_true", help="do not ask")
    target.add_target_flags(delete)


def run(args: argparse.Namespace) -> int:
    """Look, ask, delete, say what."""
    ranges.check_range(args)
    if (args.start is None) != (args.end is None):
        raise UsageError("give both --start and --end, or neither for all times")
    wanted = None
    if args.keys is not None:
        wanted = list(dict.fromkeys(key for key in args.keys.split(",") if key))
        if not wanted:
            raise UsageError("--keys names no key")
    with target.running(args) as server:
        device = server.find(args.device)
        asked = RangeQuery(
            keys=None if wanted is None else tuple(wanted),
            start_ms=args.start,
            end_ms=args.end,
            limit=1,
        )
        found = server.history(device, asked)
        keys = sorted(msgspec.json.decode(found, type=dict[str, list[_Point]]))
        if keys and not args.yes:
            _confirm(device.name, keys, args.start is None)
        for at in range(0, len(keys), _KEYS_PER_REQUEST):
            server.delete_points(device, keys[at : at + _KEYS_PER_REQUEST], args.start, args.end)
    if args.json:
        output.json_line(_Deleted(device.name, keys))
    else:
        output.line(f"deleted points of {len(keys)} keys of {output.printable(device.name)}")
    return exits.DONE


def _confirm(device: str, keys: list[str], all_times: bool) -> None:
    if not sys.stdin.isatty():
        raise UsageError("nobody to ask: add --yes")
    what = "all points" if all_times else "the points in this range"
    names = ", ".join(map(output.printable, keys[:10])) + (", ..." if len(keys) > 10 else "")
    print(f"Delete {what} of {output.printable(device)}: {names}? [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise TbfastError("nothing was deleted")
