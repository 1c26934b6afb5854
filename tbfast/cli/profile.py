"""List, show, create and delete device profiles.

Works on the running server of a data directory, or on its store when no server runs.
"""

import argparse
from pathlib import Path
from typing import Any, get_args

import msgspec

from tbfast.cli import exits, output, target
from tbfast.errors import NotFound
from tbfast.model.transport import TransportType


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One action each, all with --data-dir and --json."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="print all profiles")
    listing.set_defaults(action=_list)

    create = actions.add_parser("create", help="create a profile and print its id")
    create.add_argument("name", metavar="NAME")
    create.add_argument(
        "--transport", default="DEFAULT", choices=get_args(TransportType), metavar="TYPE",
        help=f"{', '.join(get_args(TransportType))} (default: DEFAULT)",
    )  # fmt: skip
    create.add_argument("--description")
    create.add_argument(
        "--data", metavar="FILE", help="profileData as JSON, as ThingsBoard's REST API takes it"
    )
    create.add_argument("--provision-key", metavar="KEY", help="devices provision themselves by it")
    create.set_defaults(action=_create)

    for name, action, text in (
        ("show", _show, "print one profile with its settings"),
        ("delete", _delete, "delete a profile that no device has"),
    ):
        one = actions.add_parser(name, help=text)
        one.add_argument("profile", metavar="PROFILE", help="name or id")
        one.set_defaults(action=action)
    for action_parser in actions.choices.values():
        target.add_target_flags(action_parser)


def run(args: argparse.Namespace) -> int:
    """Do the chosen action."""
    code: int = args.action(args)
    return code


def _list(args: argparse.Namespace) -> int:
    with target.opened(args) as where:
        profiles = where.profiles()
    if args.json:
        output.json_line(profiles)
        return exits.DONE
    output.table(
        ("name", "id", "transport", "provisioning", "default"),
        (
            (p.name, p.id, p.transport_type, p.provision_type, "yes" if p.default else "")
            for p in profiles
        ),
    )
    return exits.DONE


def _create(args: argparse.Namespace) -> int:
    draft = target.ProfileDraft(
        args.name,
        args.transport,
        args.description,
        _profile_data(args.data) if args.data else None,
        args.provision_key,
    )
    with target.opened(args, create=True) as where:
        profile = where.create_profile(draft)
    if args.json:
        output.json_line(profile)
    else:
        output.line(profile.id)
    return exits.DONE


def _show(args: argparse.Namespace) -> int:
    with target.opened(args) as where:
        profile = _found(where, args.profile)
    if args.json:
        output.json_line(profile)
        return exits.DONE
    fields = msgspec.to_builtins(profile)
    fields["createdTime"] = output.time_text(profile.created_time) + " UTC"
    fields["default"] = "yes" if profile.default else "no"
    fields["profileData"] = msgspec.json.encode(profile.profile_data).decode()
    output.table(("", ""), ((name, str(value or "")) for name, value in fields.items()))
    return exits.DONE


def _delete(args: argparse.Namespace) -> int:
    with target.opened(args) as where:
        profile = _found(where, args.profile)
        where.remove_profile(profile)
    if args.json:
        output.json_line(profile)
    else:
        output.line(f"deleted {output.printable(profile.name)}")
    return exits.DONE


def _found(where: target.Target, text: str) -> target.ProfileView:
    profiles = where.profiles()
    for profile in profiles:
        if profile.name == text:
            return profile
    for profile in profiles:
        if profile.id == text.lower():
            return profile
    raise NotFound(f"there is no device profile with the name or id {text!r}")


def _profile_data(path: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = msgspec.json.decode(Path(path).read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise exits.UsageError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise exits.UsageError(f"{path} holds no JSON object: {error}") from error
    return found
