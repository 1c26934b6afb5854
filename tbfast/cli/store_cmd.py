"""Look after the stores: seal what is not sealed yet, recover what is damaged.

'seal' asks a running server; it does by itself what is needed, every ten minutes and when it stops.
"""

import argparse

from tbfast.cli import client, exits, output, target
from tbfast.cli.exits import Unreachable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    seal = actions.add_parser("seal", help="seal rows now and print what they take")
    seal.set_defaults(action=_seal)
    recover = actions.add_parser("recover", help="save what can be read of damaged stores")
    recover.add_argument(
        "--shard",
        metavar="STORE",
        help="registry, series, attributes or journal/N (default: each that is damaged)",
    )
    recover.set_defaults(action=_recover)
    for action in actions.choices.values():
        target.add_target_flags(action)


def run(args: argparse.Namespace) -> int:
    """Do the chosen action."""
    code: int = args.action(args)
    return code


def _recover(args: argparse.Namespace) -> int:
    """Prints every loss; done (0) when the server can start, whatever was lost."""
    from tbfast.cli import offline  # RocksDB takes a while to load

    directory = target.data_dir(args)
    done = offline.recover(directory, args.shard)
    if args.json:
        output.json_line(done)
        return exits.DONE
    for one in done:
        kept = f", the damaged files are at {one.kept_at}" if one.kept_at else ""
        output.line(output.printable(f"{one.shard}: {one.rows} rows saved{kept}"))
        for text in one.notes:
            output.line(f"  damage: {output.printable(text)}")
        for text in one.lost:
            output.line(f"  lost: {output.printable(text)}")
    if not done:
        output.line("nothing is damaged")
    return exits.DONE


def _seal(args: argparse.Namespace) -> int:
    directory = target.data_dir(args)
    server = client.connect(directory)
    if server is None:
        raise Unreachable(
            f"no server runs on {directory}; start it with 'tbfast serve': only a running server "
            "seals, and one that stops has sealed everything"
        )
    try:
        sealed = server.seal()
    finally:
        server.close()
    if args.json:
        output.json_line(sealed)
        return exits.DONE
    rows = [(kind, n.points, n.bytes) for kind, n in sorted(sealed.kinds.items())]
    rows.append(("TIMES", sealed.points, sealed.bytes - sum(n for _, _, n in rows)))
    rows.append(("all", sealed.points, sealed.bytes))
    output.table(
        ("values", "points", "bytes", "bytes/point"),
        [(kind, str(points), str(n), f"{n / max(1, points):.2f}") for kind, points, n in rows],
    )
    return exits.DONE
