"""Add, list, show, change and remove devices.

Works on a running server, or on the store of a data directory when no server runs.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from tbfast.cli import exits, output, target
from tbfast.cli.devices import DeviceChanges, DeviceView, Secret
from tbfast.model.device import CredentialsType

_VALUES: Final = """\
credentials:
  --token TOKEN is what most devices show. Others, with --value as text or @FILE:
  MQTT_BASIC         {"clientId":"..","userName":"..","password":".."}, a part may be missing
  X509_CERTIFICATE   the certificate as PEM
  LWM2M_CREDENTIALS  {"client":{"securityConfigClientMode":"PSK","endpoint":"..","identity":"..",
                     "key":".."},"bootstrap":{"bootstrapServer":{"securityMode":"NO_SEC"},
                     "lwm2mServer":{"securityMode":"NO_SEC"}}}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One action each, all with --data-dir and --json."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    form: dict[str, Any] = {
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "epilog": _VALUES,
    }
    add = actions.add_parser("add", help="create a device and print its access token", **form)
    add.add_argument("name", metavar="NAME")
    add.set_defaults(action=_add)

    update = actions.add_parser("update", help="change a device; what is not named stays", **form)
    update.add_argument("device", metavar="DEVICE", help="name or id")
    update.add_argument("--name", help="another name")
    update.set_defaults(action=_update)
    for one in (add, update):
        _add_settings(one)

    listing = actions.add_parser("list", help="print all devices")
    listing.add_argument("--search", default="", metavar="TEXT", help="in name or label")
    listing.set_defaults(action=_list)

    for name, alias, action, text in (
        ("show", "get", _show, "print one device with its credentials"),
        ("remove", "delete", _remove, "delete a device and its credentials"),
    ):
        one = actions.add_parser(name, aliases=[alias], help=text)
        one.add_argument("device", metavar="DEVICE", help="name or id")
        one.set_defaults(action=action)
    for action_parser in set(actions.choices.values()):
        target.add_target_flags(action_parser)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """What a device has besides its name."""
    parser.add_argument("--label", help='shown beside the name; "" for none')
    parser.add_argument(
        "--profile", "--type", metavar="NAME",
        help="device profile; one that does not exist is made, as a copy of the default one",
    )  # fmt: skip
    parser.add_argument(
        "--gateway", action=argparse.BooleanOptionalAction,
        help="whether it may speak for other devices",
    )  # fmt: skip
    parser.add_argument(
        "--info", type=_object, metavar="JSON",
        help="members of additionalInfo to set, null removes one; @FILE reads them from a file",
    )  # fmt: skip
    parser.add_argument("--token", help="access token (of a new device: else a random one)")
    parser.add_argument(
        "--credentials", choices=get_args(CredentialsType), metavar="TYPE",
        help="ACCESS_TOKEN or one of those below",
    )  # fmt: skip
    parser.add_argument("--value", type=_text, metavar="TEXT", help="of these credentials")


def run(args: argparse.Namespace) -> int:
    """Do the chosen action."""
    code: int = args.action(args)
    return code


def _add(args: argparse.Namespace) -> int:
    changes = _changes(args, args.name)
    if args.url is None and not (directory := target.data_dir(args)).exists():
        print(f"tbfast: creating the data directory {directory}", file=sys.stderr)
    with target.opened(args, create=True) as where:
        device = where.create(changes)
    if args.json:
        output.json_line(device)
    else:
        output.line(device.token or device.credentials_id or "")
    return exits.DONE


def _update(args: argparse.Namespace) -> int:
    changes = _changes(args, args.name)
    if changes == DeviceChanges():
        raise exits.UsageError("nothing to change; see: tbfast device update --help")
    with target.opened(args) as where:
        device = where.change(where.find(args.device), changes)
    return _print(args, device)


def _list(args: argparse.Namespace) -> int:
    with target.opened(args) as where:
        devices = list(where.devices(args.search))
    if args.json:
        output.json_line(devices)
        return exits.DONE
    output.table(
        ("name", "id", "profile", "label", "created (UTC)"),
        ((d.name, d.id, d.type, d.label or "", output.time_text(d.created_time)) for d in devices),
    )
    return exits.DONE


def _show(args: argparse.Namespace) -> int:
    with target.opened(args) as where:
        device = where.with_credentials(where.find(args.device))
    return _print(args, device)


def _print(args: argparse.Namespace, device: DeviceView) -> int:
    if args.json:
        output.json_line(device)
        return exits.DONE
    fields = msgspec.to_builtins(device)
    fields["createdTime"] = output.time_text(device.created_time) + " UTC"
    if device.additional_info is not None:
        fields["additionalInfo"] = msgspec.json.encode(device.additional_info).decode()
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


def _changes(args: argparse.Namespace, name: str | None) -> DeviceChanges:
    info = args.info
    if args.gateway is not None:
        info = (info or {}) | {"gateway": args.gateway}
    return DeviceChanges(
        name=name, label=args.label, profile=args.profile, info=info, secret=_secret(args)
    )


def _secret(args: argparse.Namespace) -> Secret | None:
    """UsageError for what does not go together."""
    if args.credentials in (None, "ACCESS_TOKEN"):
        if args.value is not None:
            raise exits.UsageError("--value needs --credentials, another type than ACCESS_TOKEN")
        if args.credentials is not None and not args.token:
            raise exits.UsageError("--credentials ACCESS_TOKEN needs --token")
        return Secret(id=args.token) if args.token else None
    if args.token or args.value is None:
        raise exits.UsageError(f"--credentials {args.credentials} needs --value, and no --token")
    return Secret(args.credentials, value=args.value)


def _text(given: str) -> str:
    """The text itself, or with @ before it what is in that file."""
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"cannot read {given[1:]}: {error}") from error


def _object(given: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = msgspec.json.decode(_text(given), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"this is no JSON object: {error}") from error
    return found
