"""--start and --end of commands that read or delete stored telemetry."""

import argparse
from typing import Final

from tbfast.cli.exits import UsageError

INT64: Final = range(-(1 << 63), 1 << 63)


def add_range_flags(parser: argparse.ArgumentParser) -> None:
    """Unix ms; none = no bound."""
    parser.add_argument("--start", type=int, metavar="MS", help="Unix ms, inclusive")
    parser.add_argument("--end", type=int, metavar="MS", help="Unix ms, exclusive")


def check_range(args: argparse.Namespace) -> None:
    """UsageError for times that cannot be, and for those the wrong way round."""
    for name, value in (("--start", args.start), ("--end", args.end)):
        if value is not None and value not in INT64:
            raise UsageError(f"{name} must be Unix ms from {INT64[0]} to {INT64[-1]}")
    if args.start is not None and args.end is not None and args.start > args.end:
        raise UsageError("--start is after --end")
