"""Examine a data directory and say what is wrong, what it means and what to do.

Beside a running server only what needs no store is looked at; stop it for the rest.  --deep reads
every stored row and OTA package and checks it.  --repair does what is safe: it never touches data.

exit codes: 0 nothing to do, 1 something that does not keep the server from serving, 2 the server
cannot start, or stored rows are damaged or missing
"""

import argparse

from tbfast import config
from tbfast.cli import client, output, target

HEALTHY, TROUBLED, ILL = 0, 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How thoroughly, and whether to repair."""
    parser.add_argument("--deep", action="store_true", help="read and check every stored row")
    parser.add_argument("--repair", action="store_true", help="repair what is safe to repair")
    target.add_target_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Examines, prints; the exit code sums it up."""
    from tbfast.cli import offline  # RocksDB takes a while to load

    settings = config.load(args).config
    directory = target.data_dir(args)
    server = client.connect(directory)
    if server is not None:
        server.close()
    with output.bar("reading") as progress:
        found = offline.examine(
            directory,
            settings.disk.reserve_bytes,
            running=server is not None,
            deep=args.deep,
            repair=args.repair,
            progress=progress,
        )
    if args.json:
        output.json_line(found)
    else:
        for f in found:
            state = "repaired" if f.repaired else f.level
            output.line(output.printable(f"{state}: {f.about}: {f.text}"))
            if not f.repaired:
                output.line(output.printable(f"  to do: {f.fix}"))
        if server is not None:
            output.line("a server runs: stop it to have its stores examined")
        elif not found:
            output.line("nothing found")
    levels = {f.level for f in found if not f.repaired}
    return ILL if "error" in levels else TROUBLED if "warning" in levels else HEALTHY
