"""schemathesis, unmodified, against our own OpenAPI document on port 8080."""

import os
import subprocess
import sys

import pytest

from tests.support.server import ROOT, Server

pytestmark = pytest.mark.interop

SDK = ROOT / "build" / "sdk"  # `make interop` puts it there
CHECKS = "not_a_server_error,response_schema_conformance,content_type_conformance"


@pytest.mark.skipif(not SDK.is_dir(), reason="schemathesis is not installed: make interop")
def test_no_request_breaks_the_interface(own_server: Server, tmp_path) -> None:
    """Left out: calls that would wait for a device, the endless stream, what is answered 501."""
    own_server.cli("user", "create", "st@example.org")
    key = own_server.cli("user", "key", "st@example.org").strip()
    url = f"http://127.0.0.1:{own_server.http_port}/api/openapi.json"
    done = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "run", url,
            "--header", f"X-Authorization: ApiKey {key}",
            "--checks", CHECKS, "--phases", "examples,coverage,fuzzing",
            "--max-examples", "3", "--seed", "1", "--no-color",
            "--exclude-path", "/api/tail", "--exclude-path-regex", "/rpc/|/ruleChain",
        ],
        env={**os.environ, "PYTHONPATH": str(SDK)}, cwd=tmp_path, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "Traceback" not in own_server.log()
