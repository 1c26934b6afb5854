"""Make a backup of a server's data, while it runs or stopped.

A running server first seals everything it has acknowledged; devices go on sending meanwhile.  The
backup is a directory, or one file if its name ends in .tar; it appears under its name when it is
whole and on disk.  Get a data directory of it with: tbfast restore
"""

import argparse
from pathlib import Path

import msgspec

from tbfast.cli import client, exits, output, target


class _Done(msgspec.Struct, rename="camel"):
    path: str
    version: str
    created_ms: int
    files: int
    bytes: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to."""
    parser.add_argument("to", metavar="DIR|FILE.tar", help="new directory or tar archive")
    target.add_target_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Asks the server for a snapshot, or takes the data directory's lock; copies."""
    from tbfast.cli import offline  # RocksDB takes a while to load

    directory, to = target.data_dir(args), Path(args.to)
    offline.check_backup_target(to)
    server = client.connect(directory)
    with output.bar("backup") as progress:
        if server is None:
            made = offline.backup(directory, to, progress)
        else:
            try:
                with server.snapshot() as snapshot:
                    made = offline.copy_snapshot(snapshot, to, progress)
            finally:
                server.close()
    if args.json:
        output.json_line(_Done(str(to), made.version, made.created_ms, len(made.files), made.bytes))
    else:
        output.line(f"{output.printable(str(to))}: {len(made.files)} files, {made.bytes} bytes")
    return exits.DONE
