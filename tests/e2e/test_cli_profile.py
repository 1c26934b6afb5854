"""`tbfast profile` with and without a server."""

import json
from pathlib import Path

import pytest

from tests.e2e.test_cli import Cli, app, cli  # noqa: F401 - fixtures


def test_the_life_of_a_profile(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    data = tmp_path / "profile.json"
    topics = {"type": "MQTT", "deviceTelemetryTopic": "/t"}
    data.write_text(json.dumps({"transportConfiguration": topics}))
    profile_id = cli.ok(
        "profile", "create", "meter", "--transport", "MQTT", "--data", str(data),
        "--description", "of a house", "--provision-key", "K",
    ).strip()  # fmt: skip
    shown = json.loads(cli.ok("profile", "show", "meter", "--json"))
    assert shown["profileData"]["transportConfiguration"] == topics
    assert (shown["id"], shown["provisionDeviceKey"]) == (profile_id, "K")
    assert shown == json.loads(cli.ok("profile", "show", profile_id.upper(), "--json"))
    assert "of a house" in cli.ok("profile", "show", "meter")
    listed = json.loads(cli.ok("profile", "list", "--json"))
    assert [(p["name"], p["default"]) for p in listed] == [("default", True), ("meter", False)]
    table = cli.ok("profile", "list")
    assert "meter" in table
    assert "MQTT" in table
    cli.ok("device", "add", "d", "--type", "meter")
    assert "referenced by the devices" in cli.fails(1, "profile", "delete", "meter")
    cli.ok("device", "remove", "d")
    assert cli.ok("profile", "delete", "meter") == "deleted meter\n"
    cli.fails(3, "profile", "show", "meter")
    cli.fails(1, "profile", "delete", "default")


def test_files_that_are_no_profile_data(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    data = tmp_path / "profile.json"
    assert "cannot read" in cli.fails(2, "profile", "create", "a", "--data", str(data))
    for text in ("[]", "{", '{"a":' * 5000):
        data.write_text(text)
        assert "JSON object" in cli.fails(2, "profile", "create", "a", "--data", str(data))
    data.write_text('{"transportConfiguration":{"type":"COAP"}}')
    assert "COAP" in cli.fails(1, "profile", "create", "a", "--data", str(data))


@pytest.mark.parametrize("name", ["default", ""])
def test_names_that_cannot_be(cli: Cli, name: str) -> None:  # noqa: F811
    cli.fails(1, "profile", "create", name)
