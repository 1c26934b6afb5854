"""Call methods of a device, and look after calls that are kept for it, on a running server.

A call waits for the device's answer and prints it; a persistent one is kept by the server until
the device has answered or its time is over, and its id is printed at once.
"""

import argparse
from typing import Any, Final, get_args
from urllib.parse import quote

import msgspec

from tbfast.cli import exits, output, target
from tbfast.cli.client import Refused, Server
from tbfast.cli.exits import UsageError
from tbfast.errors import TbfastError
from tbfast.model.rpc import Status

_PATH: Final = "/api/rpc/persistent"
_PAGE_SIZE: Final = 1_000
_MARGIN_S: Final = 10.0  # the server's own answer to a device that is silent


class _Body(msgspec.Struct):
    method: str
    params: str


class _Request(msgspec.Struct):
    body: _Body


class _Id(msgspec.Struct):
    id: str


class _Call(msgspec.Struct, rename="camel"):
    id: _Id
    created_time: int
    status: str
    request: _Request
    response: msgspec.Raw


class _Kept(msgspec.Struct, rename="camel"):
    rpc_id: str


class _Page(msgspec.Struct, rename="camel"):
    data: list[msgspec.Raw]
    has_next: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One action each, all with --data-dir and --json."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    call = actions.add_parser("call", help="call a method and print the answer")
    call.add_argument("device", metavar="DEVICE", help="name or id")
    call.add_argument("method", metavar="METHOD")
    call.add_argument(
        "params", metavar="PARAMS", nargs="?", help="JSON; anything else is text (default: null)"
    )
    call.add_argument("--oneway", action="store_true", help="no answer is wanted")
    call.add_argument("--persistent", action="store_true", help="keep the call, print its id")
    call.add_argument(
        "--timeout", type=float, default=10.0, metavar="S", help="at least 5 s (default: 10)"
    )
    call.add_argument(
        "--retries", type=int, metavar="N", help="of a persistent call that is not acknowledged"
    )
    call.set_defaults(action=_call)

    listing = actions.add_parser("list", help="print the persistent calls of a device")
    listing.add_argument("device", metavar="DEVICE", help="name or id")
    listing.add_argument("--status", choices=get_args(Status), help="only those")
    listing.set_defaults(action=_list)

    for name, action, text in (
        ("show", _show, "print one persistent call"),
        ("delete", _delete, "delete a persistent call; an open one is withdrawn"),
    ):
        one = actions.add_parser(name, help=text)
        one.add_argument("id", metavar="ID")
        one.set_defaults(action=action)
    for action_parser in actions.choices.values():
        target.add_target_flags(action_parser)


def run(args: argparse.Namespace) -> int:
    """Do the chosen action."""
    with target.running(args) as server:
        code: int = args.action(args, server)
    return code


def _call(args: argparse.Namespace, server: Server) -> int:
    if not 0 < args.timeout <= 315_360_000:
        raise UsageError("--timeout must be a number of seconds above 0, at most ten years")
    if args.retries is not None and (args.retries < 0 or not args.persistent):
        raise UsageError("--retries is a number from 0, and needs --persistent")
    mode = "oneway" if args.oneway else "twoway"
    path = f"/api/rpc/{mode}/{server.find(args.device).id}"
    body: dict[str, Any] = {
        "method": args.method,
        "params": None if args.params is None else output.value_of(args.params),
        "timeout": int(args.timeout * 1000),
        "persistent": args.persistent,
    }
    if args.retries is not None:
        body["retries"] = args.retries
    if args.persistent:
        kept = server.call("POST", path, _Kept, (), body)
        if args.json:
            output.json_line(kept)
        else:
            output.line(kept.rpc_id)
        return exits.DONE
    server.be_patient(args.timeout + _MARGIN_S)
    try:
        answer = server.request("POST", path, (), body)
    except Refused as error:
        if error.code == 504:
            raise TbfastError("the device did not answer in time") from error
        if error.code == 406:
            raise TbfastError("the device's answer is not JSON") from error
        raise
    if args.json:
        output.json_line(msgspec.Raw(answer or b"null"))
    elif answer:
        output.line(answer.decode())
    return exits.DONE


def _list(args: argparse.Namespace, server: Server) -> int:
    path = f"{_PATH}/device/{server.find(args.device).id}"
    query: dict[str, Any] = {"pageSize": _PAGE_SIZE, "page": 0}
    query |= {"rpcStatus": args.status} if args.status else {}
    calls: list[msgspec.Raw] = []
    while True:
        page = server.call("GET", path, _Page, query)
        calls += page.data
        if not page.has_next:
            break
        query["page"] += 1
    if args.json:
        output.json_line(calls)
        return exits.DONE
    shown = [msgspec.json.decode(call, type=_Call) for call in calls]
    output.table(
        ("id", "status", "method", "params", "response", "created (UTC)"),
        (
            (
                call.id.id, call.status, call.request.body.method, call.request.body.params,
                bytes(call.response).decode(), output.time_text(call.created_time),
            )
            for call in shown
        ),
    )  # fmt: skip
    return exits.DONE


def _show(args: argparse.Namespace, server: Server) -> int:
    text = server.request("GET", _one(args.id))
    if args.json:
        output.json_line(msgspec.Raw(text))
        return exits.DONE
    call = msgspec.json.decode(text, type=_Call)
    fields = {
        "id": call.id.id,
        "status": call.status,
        "method": call.request.body.method,
        "params": call.request.body.params,
        "response": bytes(call.response).decode(),
        "created": output.time_text(call.created_time) + " UTC",
    }
    output.table(("", ""), fields.items())
    return exits.DONE


def _delete(args: argparse.Namespace, server: Server) -> int:
    server.request("DELETE", _one(args.id))
    if args.json:
        output.json_line({"deleted": args.id})
    else:
        output.line(f"deleted {output.printable(args.id)}")
    return exits.DONE


def _one(call_id: str) -> str:
    return f"{_PATH}/{quote(call_id, safe='')}"
