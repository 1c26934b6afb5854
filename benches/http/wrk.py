"""wrk as the load: keep-alive connections, one request at a time on each."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

_SCRIPT = """\
wrk.method = "{method}"
wrk.path = "{path}"
wrk.body = {body}
wrk.headers["Content-Type"] = "application/json"
function done(summary, latency, requests)
    local e = summary.errors
    io.stderr:write(string.format(
        '{{"requests": %d, "us": %d, "p50_us": %d, "p99_us": %d, "errors": %d}}',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
        e.connect + e.read + e.write + e.status + e.timeout))
end
"""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def load(
    port: int, connections: int, seconds: float, method: str, path: str, body: str | None
) -> dict[str, int]:
    """requests, us, p50_us, p99_us, errors of one run."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "load.lua"
        text = "nil" if body is None else f"[[{body}]]"
        script.write_text(_SCRIPT.format(method=method, path=path, body=text))
        done = subprocess.run(
            [
                "wrk", "--threads", "1", "--connections", str(connections),
                "--duration", f"{seconds:.0f}s", "--script", str(script),
                f"http://127.0.0.1:{port}",
            ],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    result: dict[str, int] = json.loads(done.stderr)
    return result


def cpu_s(pids: list[int]) -> float:
    """CPU time that processes have used so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_S


def family(pid: int) -> list[int]:
    """The children of a process, and itself."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [*map(int, children), pid]
