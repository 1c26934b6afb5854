"""`tbfast user`, and commands for a server elsewhere with a login."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.rest_client import Person, people
from tests.support.server import ROOT, Server


@pytest.fixture(scope="module")
def node() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def person(node: Server) -> Iterator[Person]:
    with people(node.data_dir / "front.sock") as person:
        yield person()


def run(node: Server, *words: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tbfast", *words],
        env={**node._env, **env}, cwd=ROOT, input=stdin, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def fails(node: Server, code: int, *words: str, stdin: str = "", **env: str) -> str:
    done = run(node, *words, stdin=stdin, **env)
    assert (done.returncode, done.stdout) == (code, ""), done
    assert done.stderr.startswith("tbfast: ")
    assert "Traceback" not in done.stderr
    return done.stderr


def test_life_of_a_user(node: Server, person: Person) -> None:
    password = node.cli("user", "create", "ada@example.org").strip()
    person.login("ada@example.org", password)
    assert person.ok("GET", "/api/auth/user")["authority"] == "TENANT_ADMIN"

    rows = [row.split("\t") for row in node.cli("user", "list").splitlines()]
    assert [row[:2] for row in rows] == [
        ["ada@example.org", "TENANT_ADMIN"], ["admin@tbfast.local", "TENANT_ADMIN"],
    ]  # fmt: skip
    found = json.loads(node.cli("user", "list", "--search", "ADA", "--json"))
    assert [user["email"] for user in found] == ["ada@example.org"]
    assert found[0].keys() == {"id", "email", "authority", "createdTime"}

    other = json.loads(node.cli("user", "password", "ADA@example.org", "--json"))["password"]
    assert other != password
    assert person.refusal("GET", "/api/auth/user") == (401, 11)
    person.login("ada@example.org", other)
    done = run(node, "user", "password", "ada@example.org", "--stdin", stdin="chosen by me\n")
    assert (done.returncode, done.stdout) == (0, "")
    person.login("ada@example.org", "chosen by me")

    key = json.loads(node.cli("user", "key", "Ada@example.org", "--description", "ci", "--json"))
    assert (key["email"], key["description"]) == ("ada@example.org", "ci")
    person.headers["X-Authorization"] = f"ApiKey {key['value']}"
    assert person.ok("GET", "/api/auth/user")["email"] == "ada@example.org"

    assert node.cli("user", "delete", "ada@example.org") == "deleted ada@example.org\n"
    assert person.refusal("GET", "/api/auth/user") == (401, 10)
    assert len(node.cli("user", "list").splitlines()) == 1


def test_a_lost_administrators_password(node: Server, person: Person) -> None:
    password = node.cli("user", "password", "admin@tbfast.local").strip()
    person.login("admin@tbfast.local", password)


def test_refusals(node: Server) -> None:
    fails(node, 3, "user", "password", "nobody@example.org")
    fails(node, 3, "user", "delete", "nobody@example.org")
    assert "already present" in fails(node, 1, "user", "create", "admin@tbfast.local")
    fails(node, 1, "user", "create", "c@example.org", "--authority", "CUSTOMER_USER")
    words = ("user", "create", "weak@example.org", "--stdin")
    assert "128 Unicode characters" in fails(node, 1, *words, stdin="short\n")
    fails(node, 2, *words)
    assert "weak" not in node.cli("user", "list")
    fails(node, 2, "user", "list", "--user", "x")
    assert "--url needs" in fails(node, 2, "user", "list", "--url", url(node))
    for bad in ("8080", "ftp://x", "http://", "http://x:y", "http://h/path", "http://u@h"):
        fails(node, 2, "user", "list", "--url", bad, "--api-key", "x")
    fails(node, 4, "user", "list", "--url", "http://127.0.0.1:1", "--api-key", "x")


def test_without_a_server(node: Server, tmp_path) -> None:
    assert "no server runs" in fails(node, 4, "user", "list", "--data-dir", str(tmp_path))


def url(node: Server) -> str:
    return f"http://127.0.0.1:{node.http_port}"


def test_a_server_elsewhere(node: Server) -> None:
    """Over TCP: with a password, from the environment too, and with an API key."""
    password = node.cli("user", "create", "far@example.org").strip()
    there = ("--url", url(node), "--user", "far@example.org")
    secret = {"TBFAST_PASSWORD": password}
    assert run(node, "device", "add", "far", "--token", "FAR", *there, **secret).stdout == "FAR\n"
    listed = run(node, "device", "list", *there, "--password", password)
    assert "far\t" in listed.stdout
    key = run(node, "user", "key", "far@example.org", *there, **secret).stdout.strip()
    there = ("--url", url(node), "--api-key", key)
    assert "far@example.org" in run(node, "user", "list", *there).stdout
    listed = run(node, "device", "show", "far", "--url", url(node), TBFAST_API_KEY=key)
    assert "FAR" in listed.stdout
    assert run(node, "query", "far", "--json", *there).stdout == "{}\n"
    assert "permission" in fails(node, 1, "tail", *there)
    assert "Authentication failed" in fails(
        node, 1, "device", "list", "--url", url(node), "--api-key", "tb_wrong"
    )
    assert "Invalid username or password" in fails(
        node, 1, "device", "list", "--url", url(node), "--user", "far@example.org",
        TBFAST_PASSWORD="wrong",
    )  # fmt: skip
    assert "TBFAST_PASSWORD" in fails(
        node, 2, "device", "list", "--url", url(node), "--user", "far@example.org"
    )
