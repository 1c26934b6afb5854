"""`tbfast attr` and `tbfast rpc` on a running server, with a device on the other end."""

import contextlib
import json
import threading
from collections.abc import Iterator

import pytest

from tests.support.rpc_device import device
from tests.support.server import Server
from tests.support.waiting import wait_until


@contextlib.contextmanager
def answering(server: Server, token: str, *answers: bytes | None) -> Iterator[list[bytes]]:
    """A device that answers calls in turn; None: it only acknowledges one."""
    seen: list[bytes] = []
    with device(server, token) as one:

        def work() -> None:
            for answer in answers:
                call = one.call()
                seen.append(bytes(call.payload))
                one.acknowledge(call)
                if answer is not None:
                    one.answer(call, answer)

        thread = threading.Thread(target=work)
        thread.start()
        yield seen
        thread.join(20)
        assert not thread.is_alive()


def test_attributes(server: Server, token: str) -> None:
    assert server.cli("attr", "set", token, "fw=1.10", "on=true", "name=two words", 'o={"a":[1]}')
    saved = json.loads(server.cli("attr", "get", token, "--json"))
    assert saved["shared"] == {"fw": 1.1, "on": True, "name": "two words", "o": {"a": [1]}}
    assert saved["server"].keys() <= {"active", "inactivityTimeout"}
    server.cli("attr", "set", token, "=x", code=2)
    server.cli("attr", "set", token, "x", code=2)
    said = server.cli("attr", "set", token, "note=7", "--scope", "server", "--json")
    assert json.loads(said) == {"saved": {"note": 7}}
    rows = server.cli("attr", "get", token, "--scope", "server", "--keys", "note")
    assert rows.split("\t")[:3] == ["server", "note", "7"]
    assert server.cli("attr", "delete", token, "fw", "on") == "deleted fw, on\n"
    left = json.loads(server.cli("attr", "get", token, "--scope", "shared", "--json"))
    assert left == {"shared": {"name": "two words", "o": {"a": [1]}}}
    server.cli("attr", "get", "nobody", code=3)


def test_a_call_is_answered(server: Server, token: str) -> None:
    with answering(server, token, b'{"value": 1}', b'"text"', b"no json") as seen:
        assert server.cli("rpc", "call", token, "get", '{"pin":7}') == '{"value": 1}\n'
        assert server.cli("rpc", "call", token, "get", "plain", "--json") == '"text"\n'
        server.cli("rpc", "call", token, "get", code=1)
    assert [json.loads(payload) for payload in seen] == [
        {"method": "get", "params": {"pin": 7}},
        {"method": "get", "params": "plain"},
        {"method": "get", "params": None},
    ]


def test_a_one_way_call_says_nothing(server: Server, token: str) -> None:
    with answering(server, token, None, None):
        assert server.cli("rpc", "call", token, "reboot", "--oneway") == ""
        assert server.cli("rpc", "call", token, "reboot", "--oneway", "--json") == "null\n"


def test_persistent_calls(server: Server, token: str) -> None:
    first = server.cli("rpc", "call", token, "first", "--persistent", "--timeout", "600").strip()
    kept = server.cli("rpc", "call", token, "second", "[1]", "--persistent", "--json")
    second = json.loads(kept)["rpcId"]
    rows = [row.split("\t") for row in server.cli("rpc", "list", token).splitlines()]
    assert [row[:4] for row in rows] == [
        [first, "QUEUED", "first", "null"], [second, "QUEUED", "second", "[1]"],
    ]  # fmt: skip
    assert server.cli("rpc", "delete", second) == f"deleted {second}\n"
    server.cli("rpc", "show", second, code=3)
    with answering(server, token, b"5"):
        wait_until(lambda: "SUCCESSFUL" in server.cli("rpc", "show", first))
    shown = json.loads(server.cli("rpc", "show", first, "--json"))
    assert (shown["response"], shown["request"]["retries"]) == (5, None)
    listed = json.loads(server.cli("rpc", "list", token, "--status", "SUCCESSFUL", "--json"))
    assert listed == [shown]
    assert server.cli("rpc", "list", token, "--status", "QUEUED") == ""


@pytest.mark.parametrize(
    "words",
    [
        ("call", "d", "m", "--timeout", "0"),
        ("call", "d", "m", "--retries", "1"),
        ("call", "d", "m", "--persistent", "--retries", "-1"),
        ("list", "d", "--status", "LOST"),
        ("call", "d"),
    ],
)
def test_usage_errors(server: Server, words: tuple[str, ...]) -> None:
    server.cli("rpc", *words, code=2)


def test_without_a_server(tmp_path, server: Server) -> None:
    for words in (("attr", "get", "d"), ("rpc", "show", "x")):
        server.cli(*words, "--data-dir", str(tmp_path), code=4)


def test_a_device_that_is_silent(server: Server, token: str) -> None:
    server.cli("rpc", "call", token, "m", "--timeout", "5", code=1)
