"""List, create and delete users of the management API, set their passwords, make API keys.

On the socket in the data directory no login is needed: whoever owns it may do everything. A new
password is random and printed, or read from the first line of standard input with --stdin.
"""

import argparse
import secrets
import sys
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from tbfast.cli import exits, output, target
from tbfast.cli.client import Server
from tbfast.cli.exits import UsageError
from tbfast.errors import NotFound, TbfastError
from tbfast.model.account import Authority

_AUTHORITIES: Final[tuple[Authority, ...]] = ("TENANT_ADMIN", "SYS_ADMIN", "CUSTOMER_USER")
_PAGE_SIZE: Final = 1_000
_RANDOM_BYTES: Final = 12


class _Id(msgspec.Struct):
    id: str


class _User(msgspec.Struct, rename="camel"):
    id: _Id
    email: str
    authority: str
    created_time: int


class _Page(msgspec.Struct, rename="camel"):
    data: list[_User]
    has_next: bool


class _Key(msgspec.Struct):
    id: _Id
    value: str


class _ShownKey(msgspec.Struct):
    id: str
    email: str
    description: str
    value: str


class _Shown(msgspec.Struct, omit_defaults=True, rename="camel"):
    id: str
    email: str
    authority: str
    created_time: int
    password: str | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One action each."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="print all users")
    listing.add_argument("--search", default="", metavar="TEXT", help="in the email")
    listing.set_defaults(action=_list)

    create = actions.add_parser("create", help="create a user and print its password")
    create.add_argument("--authority", choices=_AUTHORITIES, default=_AUTHORITIES[0])
    create.add_argument("--customer", metavar="ID", help="whose user it is, for CUSTOMER_USER")
    create.set_defaults(action=_create)
    password = actions.add_parser("password", help="give a user a new password and print it")
    password.set_defaults(action=_password)
    key = actions.add_parser("key", help="create an API key of a user and print it")
    key.add_argument("--description", default="command line", metavar="TEXT")
    key.set_defaults(action=_key)
    delete = actions.add_parser("delete", help="delete a user and its API keys")
    delete.set_defaults(action=_delete)
    for action in (create, password, key, delete):
        action.add_argument("email", metavar="EMAIL")
    for action in (create, password):
        action.add_argument("--stdin", action="store_true", help="read the new password instead")
    for action in actions.choices.values():
        target.add_target_flags(action)


def run(args: argparse.Namespace) -> int:
    """Do the chosen action."""
    with target.running(args) as server:
        args.action(args, server)
    return exits.DONE


def _list(args: argparse.Namespace, server: Server) -> None:
    users = [_shown(user) for user in _users(server, args.search)]
    if args.json:
        output.json_line(users)
        return
    output.table(
        ("email", "authority", "created (UTC)", "id"),
        ((u.email, u.authority, output.time_text(u.created_time), u.id) for u in users),
    )


def _create(args: argparse.Namespace, server: Server) -> None:
    password = _new_password(args)
    sent: dict[str, Any] = {"email": args.email, "authority": args.authority}
    if args.customer is not None:
        sent["customerId"] = {"entityType": "CUSTOMER", "id": args.customer}
    user = server.call("POST", "/api/user", _User, {"sendActivationMail": "false"}, sent)
    try:
        _set_password(server, user, password)
    except TbfastError:
        server.request("DELETE", f"/api/user/{user.id.id}")
        raise
    _tell(args, user, password)


def _password(args: argparse.Namespace, server: Server) -> None:
    password = _new_password(args)
    user = _found(server, args.email)
    _set_password(server, user, password)
    _tell(args, user, password)


def _delete(args: argparse.Namespace, server: Server) -> None:
    user = _found(server, args.email)
    server.request("DELETE", f"/api/user/{user.id.id}")
    if args.json:
        output.json_line(_shown(user))
    else:
        output.line(f"deleted {output.printable(user.email)}")


def _key(args: argparse.Namespace, server: Server) -> None:
    user = _found(server, args.email)
    sent = {"userId": {"entityType": "USER", "id": user.id.id}, "description": args.description}
    made = server.call("POST", "/api/apiKey", _Key, body=sent)
    if args.json:
        output.json_line(_ShownKey(made.id.id, user.email, args.description, made.value))
    else:
        output.line(made.value)


def _new_password(args: argparse.Namespace) -> str:
    if not args.stdin:
        return secrets.token_urlsafe(_RANDOM_BYTES)
    password = sys.stdin.readline().removesuffix("\n")
    if not password:
        raise UsageError("standard input holds no password")
    return password


def _set_password(server: Server, user: _User, password: str) -> None:
    server.request("POST", f"/api/user/{user.id.id}/password", body={"password": password})


def _tell(args: argparse.Namespace, user: _User, password: str) -> None:
    """The password, unless the caller chose it."""
    shown = None if args.stdin else password
    if args.json:
        output.json_line(_shown(user, shown))
    elif shown is not None:
        output.line(shown)


def _found(server: Server, email: str) -> _User:
    wanted = email.casefold()
    for user in _users(server, email):
        if user.email.casefold() == wanted:
            return user
    raise NotFound(f"there is no user {email!r}")


def _users(server: Server, text_search: str) -> Iterator[_User]:
    query: dict[str, Any] = {"pageSize": _PAGE_SIZE, "sortProperty": "email", "page": 0}
    query["textSearch"] = text_search
    while True:
        page = server.call("GET", "/api/users", _Page, query)
        yield from page.data
        if not page.has_next:
            return
        query["page"] += 1


def _shown(user: _User, password: str | None = None) -> _Shown:
    return _Shown(user.id.id, user.email, user.authority, user.created_time, password)
