"""Print telemetry as the server commits it, until interrupted.

With --json: one line {"device":name,"id":..,"ts":..,"key":..,"value":..} per value.
"""

import argparse
import sys

import msgspec

from tbfast.cli import exits, output, target


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
    decoder = msgspec.json.Decoder(_Row)
    try:
        with target.running(args) as server:
            device = server.find(args.device) if args.device is not None else None
            for text in server.lines(device):
                _show(text, None if args.json else decoder)
    except KeyboardInterrupt:
        return exits.DONE
    print("tbfast: the server ended the stream (stopped, or we read too slowly)", file=sys.stderr)
    return exits.FAILED


def _show(text: bytes, decoder: "msgspec.json.Decoder[_Row] | None") -> None:
    """One line; None = as it came."""
    if decoder is None:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
        return
    row = decoder.decode(text)
    value = output.printable(bytes(row.value).decode())
    output.line(
        f"{output.time_text(row.ts)} {output.printable(row.device)} "
        f"{output.printable(row.key)}={value}"
    )
    sys.stdout.flush()
