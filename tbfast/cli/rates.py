"""Show and set the rate limits of a running server.

A limit is CAPACITY:SECONDS, or several of them with commas, all of which must fit: so many messages
may come at once, and so many come again in that time. It holds for the next message.
"""

import argparse
from typing import Any

import msgspec

from tbfast.cli import exits, output, target
from tbfast.cli.client import Server
from tbfast.errors import PeerError
from tbfast.model.rates import NAMES, parse_limit


class _Reference(msgspec.Struct):
    id: str


class _Info(msgspec.Struct):
    id: _Reference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One action each, all with --data-dir and --json."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    show = actions.add_parser("show", help="print all rate limits")
    show.set_defaults(changes=[])
    change = actions.add_parser(
        "set",
        help="set some of them and print all",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="NAME is one of:\n  " + "\n  ".join(NAMES),
    )
    change.add_argument(
        "changes", metavar="NAME=LIMIT", nargs="+", type=_change, help="without LIMIT: none"
    )
    for action_parser in actions.choices.values():
        target.add_target_flags(action_parser)


def run(args: argparse.Namespace) -> int:
    """Do the chosen action."""
    with target.running(args) as server:
        profile = _profile(server)
        if args.changes:
            profile["profileData"]["configuration"].update(args.changes)
            profile = server.call("POST", "/api/tenantProfile", dict[str, Any], (), profile)
    configuration = profile["profileData"]["configuration"]
    found = {name: configuration.get(name) or None for name in NAMES}
    if args.json:
        output.json_line(found)
    else:
        output.table(("limit", "value"), ((name, text or "-") for name, text in found.items()))
    return exits.DONE


def _profile(server: Server) -> dict[str, Any]:
    id = server.call("GET", "/api/tenantProfileInfo/default", _Info).id.id
    return server.call("GET", f"/api/tenantProfile/{id}", dict[str, Any])


def _change(text: str) -> tuple[str, str | None]:
    name, _, value = text.partition("=")
    known = {name.lower(): name for name in NAMES}.get(name.lower())
    if known is None:
        raise argparse.ArgumentTypeError(f"there is no limit {name!r}; 'show' prints all")
    try:
        parse_limit(value)
    except PeerError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return known, value or None
