"""README.md is true: its commands run in their order and print what it shows.

The server of the document is started on free ports; ports and the data directory are replaced in
every command, nothing else is.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.readme import ROOT, Step, matches, steps
from tests.support.waiting import wait_until

TRIES_S = 10.0  # for output that follows an acknowledgement: queries see it a moment later


class Reader:
    """Somebody who follows the document in a directory of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.server: subprocess.Popen[bytes] | None = None
        self.ports: dict[str, str] = {}
        (home / ".venv/bin").mkdir(parents=True)
        for name, words in {"python": [], "tbfast": ["-m", "tbfast"]}.items():
            script = home / ".venv/bin" / name
            line = " ".join(["exec", sys.executable, *words, '"$@"'])
            script.write_text(f"#!/bin/sh\n{line}\n")
            script.chmod(0o755)
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("TBFAST_")},
            "PYTHONPATH": str(ROOT),
        }

    def start(self, command: str) -> None:
        """Starts the document's server on free ports and waits until it is ready."""
        self.server = subprocess.Popen(
            ["sh", "-c", f"exec {command.strip()} --mqtt-port 0 --http-port 0"],
            cwd=self.home, env=self.env, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        announced = self.home / "tbfast-data/run/node.json"
        wait_until(lambda: announced.exists() or self.server.poll() is not None)
        assert self.server.poll() is None, "the server has ended"
        node = json.loads(announced.read_text())
        self.ports = {"1883": str(node["mqtt_port"]), "8080": str(node["http_port"])}
        wait_until(self._ready)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['8080']}/readyz", timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False

    def stop(self) -> None:
        """Stops the server as the document says."""
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            assert self.server.wait(30) == 0
            self.server = None

    def run(self, step: Step) -> None:
        """Runs a command; what it promises must come."""
        text = step.text
        for documented, actual in self.ports.items():
            text = text.replace(documented, actual)
        words = [sys.executable, "-c", text] if step.kind == "python" else ["sh", "-c", text]
        deadline = time.monotonic() + TRIES_S
        while True:
            done = subprocess.run(
                words, cwd=self.home, env=self.env, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            good = done.returncode == 0 and (
                step.promised is None or matches(step.promised, done.stdout)
            )
            if good:
                return
            repeatable = " query " in text and time.monotonic() < deadline
            assert repeatable, f"{text}\n{done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.fixture
def reader(tmp_path) -> Iterator[Reader]:
    someone = Reader(tmp_path)
    yield someone
    if someone.server is not None:
        someone.server.kill()
        someone.server.wait()


def follow(reader: Reader, *, foreign: bool) -> None:
    """Runs the document's commands, with or without those that need foreign programs."""
    for step in steps():
        if step.mark.startswith("skip,") or (step.mark == "interop" and not foreign):
            continue
        if step.mark == "server":
            reader.start(step.text)
            continue
        if step.mark == "stopped":
            reader.stop()
        reader.run(step)
    reader.stop()


def test_every_command_works(reader):
    follow(reader, foreign=False)


@pytest.mark.interop
def test_every_command_works_with_foreign_programs(reader):
    follow(reader, foreign=True)


def test_marks_are_known_and_little_is_skipped():
    marks = [step.mark for step in steps()]
    known = ("", "server", "stopped", "interop")
    assert all(mark in known or mark.startswith("skip, ") for mark in marks)
    skipped = [step.text.split()[:2] for step in steps() if step.mark.startswith("skip")]
    assert skipped == [["make", "run"], ["make", "test"], ["make", "bench"]]
    assert marks.count("server") == 1


def test_make_targets_of_the_document_exist():
    makefile = (ROOT / "Makefile").read_text()
    for line in (ROOT / "README.md").read_text().split("`"):
        words = line.split()
        if len(words) == 2 and words[0] == "make":
            assert f"\n{words[1]}:" in makefile, line


def test_generated_tables_are_current():
    done = subprocess.run(
        [sys.executable, "deploy/docs.py", "--check"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
