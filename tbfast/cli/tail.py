"""Print telemetry as the server commits it, until interrupted.

With --json: one line {"device":name,"id":..,"ts":..,"key":..,"value":..} per value.
"""

import argparse
import sys

import msgspec

from tbfast.cli import client, exits, output, target
from tbfast.cli.exits import Unreachable


class _Row(msgspec.Struct):
    device: str
    ts: int
    key: str
    value: msgspec.Raw


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """An optional device."""
    parser.add_argument("device", metavar="DEVICE", nargs="?", help="name or id (default: all)")
    target.add_target_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Follow until Ctrl-C (done) or until the server ends the stream (failed)."""
    directory = target.data_dir(args)
    server = client.connect(directory)
    if server is None:
        raise Unreachable(
            f"no server runs on {directory}; start one with: tbfast serve --data-dir {directory}"
        )
    decoder = msgspec.json.Decoder(_Row)
    try:
        device = server.find(args.device) if args.device is not None else None
        for text in server.lines(device):
            if args.json:
                sys.stdout.buffer.write(text)
                sys.stdout.buffer.flush()
                continue
            row = decoder.decode(text)
            value = output.printable(bytes(row.value).decode())
            output.line(
                f"{output.time_text(row.ts)} {output.printable(row.device)} "
                f"{output.printable(row.key)}={value}"
            )
            sys.stdout.flush()
    except KeyboardInterrupt:
        return exits.DONE
    finally:
        server.close()
    print("tbfast: the server ended the stream (stopped, or we read too slowly)", file=sys.stderr)
    return exits.FAILED
