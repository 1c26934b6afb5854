"""The interface against its own OpenAPI document: no request breaks it, answers are as described.

Requests come from the document: bodies that fit and bodies that do not, ids that exist and ids that
do not. They are sent to a real node, as a tenant administrator and as a system administrator.
"""

import json
import re
import uuid
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tbfast.control.accounts import DEMO_ACCOUNTS
from tests.support.json_schema import anything, misfit, values
from tests.support.rest_client import Person, people
from tests.support.server import Server

ENVELOPE = {"status", "message", "errorCode", "timestamp"}
EXAMPLES = 10  # of each operation and person


@pytest.fixture(scope="module")
def node():
    with Server(flags=("--demo",)) as server:
        yield server


@pytest.fixture(scope="module")
def persons(node: Server):
    """Programs with keys that no request of this test can end, one for each administrator."""
    with people(node.data_dir / "front.sock") as person:
        programs = []
        for email, _authority, password in DEMO_ACCOUNTS:
            admin = person().login(email, password)
            body = {"userId": admin.ok("GET", "/api/auth/user")["id"], "description": "test"}
            key = admin.ok("POST", "/api/apiKey", body)["value"]
            programs.append(person(Authorization=f"ApiKey {key}"))
        yield programs


@pytest.fixture(scope="module")
def document(persons: list[Person]) -> dict[str, Any]:
    found = persons[0].ok("GET", "/v3/api-docs")
    assert found == persons[0].ok("GET", "/api/openapi.json")
    return found


@pytest.fixture
def known(persons: list[Person]) -> list[str]:
    """Words that mean something in a path: ids of a device and a user, scopes, kinds."""
    tenant = persons[0]
    name = str(uuid.uuid4())
    device = tenant.ok("POST", "/api/device", {"name": name, "label": "l"})["id"]["id"]
    sent = {"email": f"{name}@example.org", "authority": "TENANT_ADMIN"}
    user = tenant.ok("POST", "/api/user", sent)["id"]["id"]
    key = tenant.ok("POST", "/api/apiKey", {"userId": {"id": user}, "description": "x"})
    return [device, user, key["id"]["id"], "SERVER_SCOPE", "DEVICE", "true"]


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """All of them; those that take something away last."""
    found = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return sorted(found, key=lambda operation: operation[0] == "DELETE")


def test_the_document_is_complete_and_consistent(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names)) > 40
    for method, path, operation in operations(document):
        assert operation["summary"].strip(), (method, path)
        parameters = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert parameters == set(re.findall(r"{(\w+)}", path))
    components = document["components"]["schemas"]
    assert all(re.fullmatch(r"[\w.-]+", name) for name in components)
    for reference in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert reference in components
    login = document["paths"]["/api/auth/login"]["post"]
    assert login["security"] == []
    assert document["paths"]["/api/device"]["post"]["security"] != []


@pytest.mark.parametrize("who", [0, 1])
def test_no_request_breaks_the_interface(
    node: Server, document: dict[str, Any], persons: list[Person], known: list[str], who: int
) -> None:
    answered: dict[str, set[int]] = {}
    for method, path, operation in operations(document):
        if path in ("/api/tail", "/api/rpc/calls"):
            continue  # an endless answer, only to the owner; a poll
        statuses = answered[f"{method} {path}"] = set()
        attack(persons[who], document, known, (method, path, operation), statuses)
    assert "Traceback" not in node.log()
    # It was not in vain: requests were understood, and accounts stayed logged in.
    assert persons[who].ok("GET", "/api/auth/user")
    good = [name for name, statuses in answered.items() if 200 in statuses]
    assert len(good) >= (20 if who == 0 else 8), good


def attack(
    person: Person,
    document: dict[str, Any],
    known: list[str],
    target: tuple[str, str, dict[str, Any]],
    statuses: set[int],
) -> None:
    """Sends requests to one operation and judges the answers."""
    method, path, operation = target
    components = document["components"]["schemas"]
    ids = st.builds(lambda: str(uuid.uuid4()))
    words = ids | st.text(min_size=1, max_size=10)
    if "/rpc/" not in path:  # a call of a device that is not there would be waited for
        words = st.sampled_from(known) | words

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.data())
    def one(data: st.DataObject) -> None:
        sane = data.draw(st.booleans())
        chosen = st.sampled_from(known) if sane and "/rpc/" not in path else words
        filled = re.sub(r"{\w+}", lambda _: quote(segment(data.draw(chosen)), safe=""), path)
        query = data.draw(queries(operation, components, sane))
        schema = operation.get("requestBody", {}).get("content", {}).get("application/json")
        body = None
        if method in ("POST", "PUT"):
            fitting = values(schema["schema"], components) if schema else anything
            body = json.dumps(data.draw(fitting if sane else fitting | anything))
        url = f"{filled}?{urlencode(query, errors='replace')}" if query else filled
        response, text = person.raw(method, url, body)
        statuses.add(response.status)
        what = (method, url, body, response.status, text[:500])
        unsupported = response.status == 501 and path.startswith("/api/ruleChain")  # says so
        assert response.status < 500 or unsupported, what
        if response.status >= 400:
            if text or "/rpc/" not in path:
                assert json.loads(text).keys() == ENVELOPE, what
            return
        described = operation["responses"]["200"].get("content")
        if described:
            described = described["application/json"]["schema"]
            assert misfit(json.loads(text), described, components) is None, what

    one()


def segment(text: str) -> str:
    """Text that can be a segment of a path: a client would resolve dots away."""
    return text.encode("utf-8", "replace").decode().replace("/", "_").strip(".") or "_"


def queries(
    operation: dict[str, Any], components: dict[str, Any], sane: bool
) -> st.SearchStrategy[Any]:
    """Query parameters: those described; values that fit and, unless sane, values that do not."""

    def texts(schema: dict[str, Any]) -> st.SearchStrategy[str]:
        if sane:
            return st.integers(1, 9).map(str) if schema.get("type") == "integer" else st.just("")
        fitting = values(schema, components).map(lambda value: json.dumps(value).strip('"'))
        return fitting | st.text(max_size=5)

    described = [p for p in operation["parameters"] if p["in"] == "query"]
    return st.fixed_dictionaries(
        {p["name"]: texts(p["schema"]) for p in described if p["required"]},
        optional={p["name"]: texts(p["schema"]) for p in described if not p["required"]},
    )
