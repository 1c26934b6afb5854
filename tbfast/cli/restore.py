"""Make a data directory of a backup.

Everything is verified before it gets its place.  The data directory must be new or empty; after
an interruption the same command begins again, and a server does not start before it has ended.
"""

import argparse
from pathlib import Path

import msgspec

from tbfast.cli import exits, output, target


class _Done(msgspec.Struct, rename="camel"):
    data_dir: str
    version: str
    created_ms: int
    files: int
    bytes: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where from."""
    parser.add_argument("source", metavar="DIR|FILE.tar", help="what 'tbfast backup' made")
    target.add_target_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Copies, verifies, puts in place."""
    from tbfast.cli import offline

    directory = target.data_dir(args)
    with output.bar("restore") as progress:
        made = offline.restore(Path(args.source), directory, progress)
    if args.json:
        output.json_line(
            _Done(str(directory), made.version, made.created_ms, len(made.files), made.bytes)
        )
    else:
        output.line(
            f"{output.printable(str(directory))}: {made.bytes} bytes as of "
            f"{output.time_text(made.created_ms)} UTC"
        )
    return exits.DONE
