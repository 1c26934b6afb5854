"""mosquitto as the peer to compare with: the same PUBLISHes, nothing stored, nobody subscribed."""

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.waiting import wait_until

# Nothing is written, refused or queued: what is left is the cost of the protocol.  TCP_NODELAY
# because every PUBACK is a write of its own, and with several in flight the default (off) measures
# the kernel's 40 ms of delayed acknowledgement; with one in flight it makes no difference.
_CONFIG = """\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_inflight_messages 0
max_queued_messages 0
max_connections -1
set_tcp_nodelay true
log_type error
"""
_STOP_S = 10


class Broker(NamedTuple):
    """A running broker."""

    pid: int
    port: int


def executable() -> str:
    """Raises FileNotFoundError with what to do."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found is None:
        raise FileNotFoundError("mosquitto is not installed (Debian: apt-get install mosquitto)")
    return found


def version() -> str:
    """As it reports itself: "mosquitto version 2.0.11"."""
    done = subprocess.run([executable(), "-h"], capture_output=True, text=True, check=False)
    return done.stdout.splitlines()[0]


@contextlib.contextmanager
def mosquitto() -> Iterator[Broker]:
    """A broker on a free port of 127.0.0.1."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="tbfast-bench-") as directory:
        config = Path(directory) / "mosquitto.conf"
        config.write_text(_CONFIG.format(port=port))
        process = subprocess.Popen([executable(), "-c", str(config)])
        try:
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (hard, hard))
            wait_until(lambda: _accepts(process, port), what="mosquitto listens")
            yield Broker(process.pid, port)
        finally:
            process.terminate()
            process.wait(_STOP_S)


def _accepts(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, f"mosquitto ended with {process.returncode}"
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False
