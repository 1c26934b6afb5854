"""What the command line prints without asking anyone: help, settings, limits, escapes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tbfast import config, limits
from tbfast.cli import limits_table, main, output

ROOT = Path(__file__).parents[2]


def test_help_names_every_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tbfast.cli.main", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert all(f"    {command.name} " in done.stdout for command in main.COMMANDS)


def test_help_loads_no_command() -> None:
    code = (
        "import sys; from tbfast.cli.main import build_parser; build_parser(None).format_help();"
        "print([m for m in ('msgspec','rocksdict','rich','uvicorn','asyncio') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("words", [[], ["nonsense"], ["device"], ["query"], ["--nope"]])
def test_usage_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main.main(words)
    assert stopped.value.code == 2
    assert "usage: tbfast" in capsys.readouterr().err


def test_words_that_are_not_unicode(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["device", "add", "\udcff"]) == 2
    assert "not valid" in capsys.readouterr().err


def run_config(capsysbinary, *words: str, env: dict[str, str], monkeypatch) -> str:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert main.main(["config", *words]) == 0
    return capsysbinary.readouterr().out.decode()


def test_config_shows_origins(capsysbinary, monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"TBFAST_WORKERS": "3"}
    text = run_config(capsysbinary, "--mqtt-port", "7", "--json", env=env, monkeypatch=monkeypatch)
    shown = json.loads(text)
    assert shown["workers"] == {"value": 3, "origin": "environment TBFAST_WORKERS"}
    assert shown["mqtt.bind_port"] == {"value": 7, "origin": "flag --mqtt-port"}
    assert shown.keys() == config.SETTINGS.keys()
    text = run_config(capsysbinary, env={}, monkeypatch=monkeypatch)
    assert "workers\t3\tenvironment TBFAST_WORKERS\n" in text


def test_config_markdown_has_every_setting(capsysbinary, monkeypatch) -> None:
    lines = run_config(capsysbinary, "--markdown", env={}, monkeypatch=monkeypatch).splitlines()
    assert lines[1] == "|---|---|---|---|---|"
    for line, setting in zip(lines[2:], config.SETTINGS.values(), strict=True):
        assert line.startswith(f"| `{setting.path}` |")
        assert setting.env in line
        assert line.count(" | ") == 4


def test_bad_setting_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TBFAST_WORKER", "1")
    assert main.main(["config"]) == 2
    assert "did you mean TBFAST_WORKERS" in capsys.readouterr().err


def test_limits_table_is_complete(capsysbinary, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {name for name in vars(limits) if name.isupper()}
    assert {row.name for row in limits_table.rows()} == names
    shown = json.loads(
        run_config(capsysbinary, "--limits", "--json", env={}, monkeypatch=monkeypatch)
    )
    by_name = {row["name"]: row for row in shown}
    row = by_name["REST_BODY_BYTES"]
    assert (row["value"], row["unit"]) == (limits.REST_BODY_BYTES, "bytes")
    assert "413" in row["reason"]
    assert row["group"] == "Registry and its REST interface"
    text = run_config(capsysbinary, "--limits", "--markdown", env={}, monkeypatch=monkeypatch)
    assert len(text.splitlines()) == len(names) + 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pump 1 ä 泵", "pump 1 ä 泵"),
        ("a\x1b[2J", "a\\x1b[2J"),
        ("a\x9b2J", "a\\x9b2J"),
        ("tab\tline\n", "tab\\tline\\n"),
        ("\u202e\U000e0001", "\\u202e\\U000e0001"),
    ],
)
def test_nothing_a_terminal_would_obey(text: str, shown: str) -> None:
    assert output.printable(text) == shown


def test_times() -> None:
    assert output.time_text(1_760_000_000_123) == "2025-10-09 08:53:20.123"
    assert output.time_text(0) == "1970-01-01 00:00:00.000"
    assert output.time_text(1 << 62) == str(1 << 62)
    assert output.time_text(-(1 << 62)) == str(-(1 << 62))
