"""Add, list, show and remove devices.

Works on a running server, or on the store of a data directory when no server runs.
"""

import argparse
import sys

import msgspec

from tbfast.cli import exits, output, target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One action each, all with --data-dir and --json."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    add = actions.add_parser("add", help="create a device and print its access token")
    add.add_argument("name", metavar="NAME")
    add.add_argument("--token", help="access token (default: a random one)")
    add.add_argument("--label")
    add.add_argument("--type", help="device profile by name (default: default)")
    add.set_defaults(action=_add)

    listing = actions.add_parser("list", help="print all devices")
    listing.add_argument("--search", default="", metavar="TEXT", help="in name or label")
    listing.set_defaults(action=_list)

    for name, action, text in (
        ("show", _show, "print one device with its access token"),
        ("remove", _remove, "delete a device and its credentials"),
    ):
        one = actions.add_parser(name, help=text)
        one.add_argument("device", metavar="DEVICE", help="name or id")
        one.set_defaults(action=action)
    for action_parser in actions.choices.values():
        target.add_target_flags(action_parser)


def run(args: argparse.Namespace) -> int:
    """Do the chosen action."""
    code: int = args.action(args)
    return code


def _add(args: argparse.Namespace) -> int:
    if args.url is None and not (directory := target.data_dir(args)).exists():
        print(f"tbfast: creating the data directory {directory}", file=sys.stderr)
    with target.opened(args, create=True) as where:
        device = where.create(args.name, args.token, args.label, args.type)
    if args.json:
        output.json_line(device)
    else:
        output.line(device.token or "")
    return exits.DONE


def _list(args: argparse.Namespace) -> int:
    with target.opened(args) as where:
        devices = list(where.devices(args.search))
    if args.json:
        output.json_line(devices)
        return exits.DONE
    output.table(
        ("name", "id", "type", "label", "created (UTC)"),
        ((d.name, d.id, d.type, d.label or "", output.time_text(d.created_time)) for d in devices),
    )
    return exits.DONE


def _show(args: argparse.Namespace) -> int:
    with target.opened(args) as where:
        device = where.with_token(where.find(args.device))
    if args.json:
        output.json_line(device)
        return exits.DONE
    fields = msgspec.to_builtins(device)
    fields["createdTime"] = output.time_text(device.created_time) + " UTC"
    output.table(("", ""), ((name, str(value or "")) for name, value in fields.items()))
    return exits.DONE


def _remove(args: argparse.Namespace) -> int:
    with target.opened(args) as where:
        device = where.find(args.device)
        where.remove(device)
    if args.json:
        output.json_line(device)
    else:
        output.line(f"removed {output.printable(device.name)}")
    return exits.DONE
