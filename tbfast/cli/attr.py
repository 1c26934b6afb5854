"""Read, set and delete attributes of a device, on a running server.

Shared attributes are pushed to the device, server attributes are only kept; client attributes are
the device's own and can be read and deleted here.
"""

import argparse
from typing import Any, Final

import msgspec

from tbfast.cli import exits, output, target
from tbfast.cli.client import Server
from tbfast.cli.exits import UsageError

_SCOPES: Final = {name: f"{name.upper()}_SCOPE" for name in ("client", "shared", "server")}


class _Attribute(msgspec.Struct, rename="camel"):
    key: str
    value: msgspec.Raw
    last_update_ts: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One action each, all with --data-dir and --json."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    get = actions.add_parser("get", help="print attributes")
    get.add_argument("device", metavar="DEVICE", help="name or id")
    get.add_argument("--keys", metavar="A,B", help="only these keys (default: all)")
    get.add_argument("--scope", choices=tuple(_SCOPES), help="only this scope (default: all)")
    get.set_defaults(action=_get)

    save = actions.add_parser("set", help="save attributes")
    save.add_argument("device", metavar="DEVICE", help="name or id")
    save.add_argument(
        "values", metavar="KEY=VALUE", nargs="+", help="a value is JSON; anything else is text"
    )
    save.add_argument("--scope", choices=("shared", "server"), default="shared")
    save.set_defaults(action=_set)

    delete = actions.add_parser("delete", help="delete attributes")
    delete.add_argument("device", metavar="DEVICE", help="name or id")
    delete.add_argument("keys", metavar="KEY", nargs="+")
    delete.add_argument("--scope", choices=tuple(_SCOPES), default="shared")
    delete.set_defaults(action=_delete)
    for action_parser in actions.choices.values():
        target.add_target_flags(action_parser)


def run(args: argparse.Namespace) -> int:
    """Do the chosen action."""
    with target.running(args) as server:
        code: int = args.action(args, server)
    return code


def _get(args: argparse.Namespace, server: Server) -> int:
    path = _path(server, args.device)
    query = [("keys", args.keys)] if args.keys else []
    found = {
        scope: server.call(
            "GET", f"{path}/values/attributes/{_SCOPES[scope]}", list[_Attribute], query
        )
        for scope in ([args.scope] if args.scope else _SCOPES)
    }
    if args.json:
        output.json_line({s: {a.key: a.value for a in rows} for s, rows in found.items()})
        return exits.DONE
    output.table(
        ("scope", "key", "value", "saved (UTC)"),
        (
            (scope, a.key, bytes(a.value).decode(), output.time_text(a.last_update_ts))
            for scope, rows in found.items()
            for a in rows
        ),
    )
    return exits.DONE


def _set(args: argparse.Namespace, server: Server) -> int:
    values: dict[str, Any] = {}
    for word in args.values:
        key, sign, text = word.partition("=")
        if not sign or not key:
            raise UsageError(f"{word!r} is not KEY=VALUE")
        values[key] = output.value_of(text)
    server.request("POST", f"{_path(server, args.device)}/{_SCOPES[args.scope]}", (), values)
    return _done(args, "saved", values)


def _delete(args: argparse.Namespace, server: Server) -> int:
    path = f"{_path(server, args.device)}/{_SCOPES[args.scope]}"
    server.request("DELETE", path, [("key", key) for key in args.keys])
    return _done(args, "deleted", args.keys)


def _done(args: argparse.Namespace, what: str, value: Any) -> int:
    if args.json:
        output.json_line({what: value})
    else:
        output.line(f"{what} {', '.join(map(output.printable, value))}")
    return exits.DONE


def _path(server: Server, device: str) -> str:
    return f"/api/plugins/telemetry/DEVICE/{server.find(device).id}"
