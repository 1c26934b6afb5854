"""nginx as the peer to compare with: 200 to every request, nothing stored."""

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benches.http.wrk import family
from tests.support.waiting import wait_until

_CONFIG = """\
daemon off;
pid {directory}/pid;
error_log stderr emerg;
{user}
worker_processes 1;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {upstream}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{ {answer} }}
    }}
}}
"""
_UPSTREAM = "upstream front {{ server unix:{}; keepalive 1000; }}"
_PROXY = 'proxy_pass http://front; proxy_http_version 1.1; proxy_set_header Connection "";'
_STOP_S = 10


def executable() -> str:
    """Raises FileNotFoundError with what to do."""
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found is None:
        raise FileNotFoundError("nginx is not installed (Debian: apt-get install nginx)")
    return found


def version() -> str:
    """As it reports itself: "nginx/1.22.1"."""
    done = subprocess.run([executable(), "-v"], capture_output=True, text=True, check=True)
    return done.stderr.strip().rpartition(" ")[2]


@contextlib.contextmanager
def nginx(front: Path | None = None) -> Iterator[tuple[list[int], int]]:
    """One worker on a free port of 127.0.0.1: its and its master's process ids, and the port.

    front: the Unix socket it passes every request on to, instead of answering it.
    """
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="tbfast-bench-") as directory:
        config = Path(directory) / "nginx.conf"
        config.write_text(
            _CONFIG.format(
                directory=directory,
                port=port,
                # Else a root's worker cannot reach the socket of a private directory.
                user="user root;" if os.geteuid() == 0 else "",
                upstream="" if front is None else _UPSTREAM.format(front),
                answer="return 200;" if front is None else _PROXY,
            )
        )
        process = subprocess.Popen([executable(), "-c", str(config), "-p", directory])
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        try:
            wait_until(lambda: _accepts(process, port), what="nginx listens")
            wait_until(lambda: len(family(process.pid)) == 2, what="nginx has its worker")
            yield family(process.pid), port
        finally:
            process.terminate()
            process.wait(_STOP_S)


def _accepts(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, f"nginx ended with {process.returncode}"
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False
