"""Processes that die, hang or fail for ever: the rest serves, and what was acknowledged stays."""

import contextlib
import fcntl
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tbfast.cli.devices import new_device
from tbfast.model import mqtt as m
from tests.support.audit import audit, audit_stopped, query
from tests.support.certificates import Certificate
from tests.support.faulty_disk import small_disk
from tests.support.ledger import running_load
from tests.support.mqtt_client import Client, connected
from tests.support.node import Node, refusal, running_node
from tests.support.waiting import wait_until

PAYLOAD = b'{"ts":1,"values":{"n":1}}'
SERVER_UNAVAILABLE, NOT_AUTHORIZED = 3, 5
CLIENTS = 1000  # of a node with 200 descriptors


def lines(node: Node, event: str) -> list[dict[str, object]]:
    return [line for line in node.log_lines() if line["event"].startswith(event)]


def test_devices_are_served_while_the_controller_is_away(tmp_path: Path) -> None:
    with running_node(tmp_path / "data") as node:
        tokens = node.add_devices(12)
        with running_load(node.mqtt_port, tokens[:8]) as load, contextlib.ExitStack() as stack:
            load.wait_acked(500)
            for token in tokens[8:]:
                with connected(node.mqtt_port, token) as client:  # known to a worker now
                    client.publish_acknowledged(PAYLOAD)
            stack.enter_context(node.controller_away())
            stranger = stack.enter_context(contextlib.closing(Client(node.mqtt_port, timeout_s=15)))
            stranger.hello("never seen before")
            load.wait_acked(2000)
            wait_until(lambda: lines(node, "process keeps failing"), 15, "controller parked")
            again = 0
            for _ in range(20):  # known on the worker that they reach, whichever it is
                again += reconnected(node, tokens[8])
            assert again > 0
            load.wait_acked(2000)
            assert stranger.expect(m.Connack).reason_code == SERVER_UNAVAILABLE
            record = load.finish()
        assert node.stop() == 0
        audit_stopped(node, record)


def reconnected(node: Node, token: str) -> bool:
    client = Client(node.mqtt_port, timeout_s=0.5)
    with contextlib.closing(client), contextlib.suppress(TimeoutError):
        assert client.connect(token) == 0
        client.publish_acknowledged(PAYLOAD)
        return True
    return False


def test_reads_are_complete_while_nothing_has_been_replayed(tmp_path: Path) -> None:
    """A new controller answers from the journals until its tail has caught up with them."""
    with running_node(tmp_path / "data", workers=1) as node:
        (token,) = node.add_devices(1)
        with connected(node.mqtt_port, token) as client:
            for n in (1, 3, 2):
                client.publish_acknowledged(b'{"ts":%d,"values":{"n":%d}}' % (n, n))
        node.kill_worker(0, signal.SIGSTOP)  # killed by the supervisor 5 s later
        before = node.controller_pid()
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: (status := node.status()) and status.pid != before, what="controller")
        with node.api() as api:
            prefix = f"/api/plugins/telemetry/DEVICE/{api.find('d0').id}"
            values = f"{prefix}/values/timeseries?useStrictDataTypes=true"
            assert api.get(values, dict) == {"n": [{"ts": 3, "value": 3}]}
            assert api.get(f"{prefix}/keys/timeseries", list) == ["n"]


def test_killed_worker_is_back_at_once(tmp_path: Path) -> None:
    with running_node(tmp_path / "data") as node, contextlib.ExitStack() as stack:
        tokens = node.add_devices(40)
        pid = node.kill_worker(0, signal.SIGSTOP)
        clients = [stack.enter_context(contextlib.closing(Client(node.mqtt_port))) for _ in tokens]
        for client, token in zip(clients, tokens, strict=True):
            client.hello(token)
        os.kill(pid, signal.SIGKILL)
        begun = time.monotonic()
        for client in clients:  # about half of them waited in the queue of the dead worker
            assert client.expect(m.Connack).reason_code == 0
        assert time.monotonic() - begun < 2
        node.wait_replaced(0, pid, 2)


def test_hanging_worker_is_replaced(tmp_path: Path) -> None:
    with running_node(tmp_path / "data") as node:
        tokens = node.add_devices(8)
        with running_load(node.mqtt_port, tokens) as load:
            load.wait_acked(500)
            pid = node.kill_worker(1, signal.SIGSTOP)
            assert node.wait_replaced(1, pid, 8) < 6.5
            load.wait_connected(8)
            load.wait_acked(500)
            record = load.finish()
        audit(node, record)


def test_crash_loop_is_parked_and_the_rest_serves(tmp_path: Path) -> None:
    with running_node(tmp_path / "data") as node:
        tokens = node.add_devices(8)
        with running_load(node.mqtt_port, tokens) as load:
            load.wait_acked(500)
            for crash in range(1, 6):
                pid = node.kill_worker(0)
                wait_until(lambda pid=pid: node.worker_pid(0) != pid, what="worker is gone")
                if crash < 5:
                    node.wait_replaced(0, pid, 10)
            wait_until(lambda: lines(node, "process keeps failing"), what="parked")
            load.wait_connected(8)
            load.wait_acked(500)
            for _ in range(20):  # nobody waits in a queue that no process serves
                with connected(node.mqtt_port, tokens[0], timeout_s=2):
                    pass
            assert health(node, "/readyz") == (503, b"worker-0 is not running\n")
            assert health(node, "/healthz") == (200, b"ok\n")
            record = load.finish()
        assert node.worker_pid(0) == 0
        audit(node, record)


def health(node: Node, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_stop_under_load(tmp_path: Path, durability: str) -> None:
    with running_node(tmp_path / "data", durability=durability) as node:
        tokens = node.add_devices(16)
        with running_load(node.mqtt_port, tokens) as load:
            load.wait_acked(2000)
            begun = time.monotonic()
            assert node.stop(40) == 0
            assert time.monotonic() - begun < 25
            node.start()
            load.wait_connected(16)
            record = load.finish()
        codes = {code for device in record.devices.values() for code in device.disconnect_codes}
        assert codes == {0x8B}  # server shutting down
        audit(node, record)
        assert not lines(node, "process did not stop")


@contextlib.contextmanager
def full_pipe() -> Iterator[int]:
    """The end to write to of a pipe that takes no byte more."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"full\n" * 100)
    os.set_blocking(writer, True)
    try:
        yield writer
    finally:
        os.close(reader)
        os.close(writer)


def test_nobody_reads_the_log(tmp_path: Path) -> None:
    with full_pipe() as pipe, running_node(tmp_path / "data", stderr=pipe) as node:
        tokens = node.add_devices(8)
        with running_load(node.mqtt_port, tokens) as load:
            load.wait_acked(500)
            for _ in range(100):
                with contextlib.closing(Client(node.mqtt_port)) as client:
                    client.sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            pid = node.kill_worker(0)
            node.wait_replaced(0, pid, 3)
            load.wait_acked(2000)
            assert node.metric("tbfast_log_dropped_total") > 0
            record = load.finish()
        audit(node, record)
        assert node.stop() == 0


def test_nobody_reads_standard_output(tmp_path: Path) -> None:
    """The first start has a password to say there."""
    with full_pipe() as pipe, running_node(tmp_path / "data", workers=1, stdout=pipe) as node:
        (told,) = lines(node, "the first administrator's password could not be printed")
        assert told["error"] == "nobody reads standard output"
        assert not lines(node, "process ")


def test_the_disk_of_the_log_is_full(tmp_path: Path) -> None:
    with (
        open("/dev/full", "wb") as full,
        running_node(tmp_path / "data", workers=1, stderr=full.fileno()) as node,
    ):
        (token,) = node.add_devices(1)
        pids = [node.controller_pid(), node.worker_pid(0)]
        dropped = node.metric("tbfast_log_dropped_total")
        assert dropped > 0  # what a start says
        with connected(node.mqtt_port, token) as client:
            for n in range(20):
                with contextlib.closing(Client(node.mqtt_port)) as stranger:
                    stranger.sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                client.publish_acknowledged(b'{"ts":%d,"values":{"n":%d}}' % (n, n))
        wait_until(lambda: node.metric("tbfast_log_dropped_total") > dropped, what="counted")
        assert query(node, "d0", "n") == {n: n for n in range(20)}
        assert pids == [node.controller_pid(), node.worker_pid(0)]
        assert node.stop() == 0


# --- refusing to start -----------------------------------------------------------------------


def test_read_only_directory(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        disk.read_only()
        message = refusal(Node(disk.path / "data", log=tmp_path / "log"))
        assert str(disk.path / "data") in message
        assert "--data-dir" in message


def test_existing_directory_turned_read_only(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 32) as disk:
        with running_node(disk.path / "data", log=tmp_path / "first") as node:
            assert node.stop() == 0
        disk.read_only()
        node = Node(disk.path / "data", log=tmp_path / "log")
        message = refusal(node)
        assert str(disk.path / "data") in message


def test_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = refusal(Node(tmp_path / "file" / "data", log=tmp_path / "log"))
    assert str(tmp_path / "file" / "data") in message
    assert "--data-dir" in message


def test_second_instance(tmp_path: Path) -> None:
    with running_node(tmp_path / "data") as node:
        message = refusal(Node(node.data_dir, log=tmp_path / "second"))
        assert str(node.data_dir) in message
        assert "another tbfast" in message
        assert node.ready()


# --- descriptors -----------------------------------------------------------------------------


@pytest.fixture
def small_node(tmp_path: Path) -> Iterator[Node]:
    """One worker with 200 descriptors."""
    wrapper = ["prlimit", "--nofile=200"]
    with running_node(tmp_path / "data", workers=1, wrapper=wrapper) as node:
        yield node


def test_more_strangers_than_descriptors(small_node: Node) -> None:
    """Connections that never say who they are: they make room for those that do."""
    tokens = small_node.add_devices(9)
    with (
        running_load(small_node.mqtt_port, tokens[:8], rate=100) as load,
        contextlib.ExitStack() as stack,
    ):
        load.wait_acked(500)
        for _ in range(CLIENTS):
            sock = socket.create_connection(("127.0.0.1", small_node.mqtt_port), 5)
            stack.enter_context(contextlib.closing(sock))
        with connected(small_node.mqtt_port, tokens[8], timeout_s=3) as client:
            client.publish_acknowledged(PAYLOAD)
        assert health(small_node, "/healthz") == (200, b"ok\n")
        load.wait_acked(500)
        record = load.finish()
    audit(small_node, record)


def crowded(node: Node, tokens: list[str], stack: contextlib.ExitStack) -> list[Client]:
    """Sessions until no descriptor is left; the last one waits for its CONNACK."""
    crowd = []
    for token in tokens:
        client = stack.enter_context(contextlib.closing(Client(node.mqtt_port)))
        client.hello(token)
        client.sock.settimeout(1)
        crowd.append(client)
        try:
            assert client.expect(m.Connack).reason_code == 0
        except TimeoutError:
            break
    assert 50 < len(crowd) < 190
    wait_until(lambda: lines(node, "no file descriptor is left"), what="a warning")
    return crowd


def test_more_sessions_than_descriptors(small_node: Node) -> None:
    """Those that found no place wait, the rest is served; they get in when others leave."""
    tokens = small_node.add_devices(200)
    with (
        running_load(small_node.mqtt_port, tokens[:8], rate=100) as load,
        contextlib.ExitStack() as stack,
    ):
        load.wait_acked(500)
        *crowd, first = crowded(small_node, tokens[8:], stack)
        waiting = {first: 0}
        devices = iter(tokens[8 + len(crowd) + 1 :])
        for number in range(CLIENTS - len(crowd) - 1):  # some of them nobody knows
            device = next(devices, None) if number % 8 == 0 else None
            client = stack.enter_context(contextlib.closing(Client(small_node.mqtt_port)))
            client.hello(device or f"nobody {number}")
            waiting[client] = 0 if device else NOT_AUTHORIZED
        pid = small_node.worker_pid(0)
        with small_node.api() as api:
            api.create(new_device("made meanwhile", "token"))
        assert health(small_node, "/healthz") == (200, b"ok\n")
        load.wait_acked(500)
        crowd[-1].publish_acknowledged(PAYLOAD)
        for client in crowd:
            client.close()
        for client, code in waiting.items():  # each in its turn: as many come in as leave
            client.sock.settimeout(10)
            assert client.expect(m.Connack).reason_code == code
            if code == 0:
                client.publish_acknowledged(PAYLOAD)
            client.close()
        assert small_node.worker_pid(0) == pid
        assert load.progress.connects == 8  # who was in stayed
        record = load.finish()
    audit(small_node, record)


def test_reload_without_descriptors(tmp_path: Path) -> None:
    """Certificates that SIGHUP loads come from the reserve; what is unusable changes nothing."""
    env = tls_settings(tmp_path, Certificate("localhost"))
    wrapper = ["prlimit", "--nofile=200"]
    with (
        running_node(tmp_path / "data", workers=1, wrapper=wrapper, env=env) as node,
        contextlib.ExitStack() as stack,
    ):
        tokens = node.add_devices(200)
        with running_load(node.mqtt_port, tokens[:8], rate=100) as load:
            load.wait_acked(500)
            *crowd, waiting = crowded(node, tokens[8:], stack)
            tls_settings(tmp_path, second := Certificate("localhost"))
            loaded = len(lines(node, "certificate loaded"))
            os.kill(node.supervisor_pid, signal.SIGHUP)
            wait_until(lambda: len(lines(node, "certificate loaded")) > loaded, what="loaded")
            (tmp_path / "server.pem").write_text("no certificate")
            os.kill(node.supervisor_pid, signal.SIGHUP)
            wait_until(lambda: lines(node, "the certificate in use stays"), what="refused")
            # Who may come in is the same as ever.
            with node.api() as api:
                api.create(new_device("made meanwhile", "fresh"))
            assert [posted(node, token) for token in (tokens[8], "fresh", "nobody")] == [
                200, 200, 401,
            ]  # fmt: skip
            with pytest.raises(TimeoutError):
                waiting.receive()
            for client in crowd[:10]:
                client.close()
            waiting.sock.settimeout(3)
            assert waiting.expect(m.Connack).reason_code == 0
            assert certificate_of(node) == second.der
            record = load.finish()
        audit(node, record)
        assert not lines(node, "process ")


def test_requests_that_never_end_leave_the_controller_its_descriptors(tmp_path: Path) -> None:
    """Strangers on all workers at once: what they share is the controller."""
    wrapper = ["prlimit", "--nofile=200"]
    with (
        running_node(tmp_path / "data", workers=6, wrapper=wrapper) as node,
        contextlib.ExitStack() as stack,
    ):
        (token,) = node.add_devices(1)
        pid = node.controller_pid()
        for _ in range(260):
            sock = socket.create_connection(("127.0.0.1", node.http_port), 5)
            stack.enter_context(contextlib.closing(sock))
            sock.sendall(b"POST /api/auth/login HTTP/1.1\r\nHost: n\r\nContent-Length: 9\r\n\r\n{")
        with connected(node.mqtt_port, token) as client:
            client.publish_acknowledged(PAYLOAD)
        with node.api() as api:
            assert api.seal().points == 1
            api.create(new_device("made meanwhile", "token"))
        stack.close()
        assert node.controller_pid() == pid
        assert query(node, "d0", "n") == {1: 1}
        assert not [line for line in node.log_lines() if line["level"] == "error"]


def tls_settings(directory: Path, certificate: Certificate) -> dict[str, str]:
    """Writes its files; the environment of a node that uses them."""
    certificate.save(directory, "server")
    return {
        "MQTT_SSL_ENABLED": "true",
        "MQTT_SSL_BIND_PORT": "0",
        "MQTT_SSL_PEM_CERT": str(directory / "server.pem"),
        "MQTT_SSL_PEM_KEY": str(directory / "server_key.pem"),
    }


def certificate_of(node: Node) -> bytes | None:
    """DER of the certificate that a new connection meets."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    info = msgspec.json.decode((node.data_dir / "run" / "node.json").read_bytes())
    sock = socket.create_connection(("127.0.0.1", info["mqtt_tls_port"]), 5)
    with context.wrap_socket(sock) as wrapped:
        return wrapped.getpeercert(True)


def posted(node: Node, token: str) -> int:
    """Status of telemetry over HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=5)
    with contextlib.closing(connection):
        connection.request("POST", f"/api/v1/{token}/telemetry", PAYLOAD)
        return connection.getresponse().status


# --- stores that are missing -----------------------------------------------------------------


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Node]:
    """A node with a row in the journal that no run holds, killed."""
    with running_node(tmp_path / "data", workers=1) as node:
        (token,) = node.add_devices(1)
        with connected(node.mqtt_port, token) as client:
            client.publish_acknowledged(PAYLOAD)
        node.kill_all()
        yield node


def test_lost_journal_is_noticed_and_the_loss_can_be_accepted(stopped: Node) -> None:
    journal = stopped.data_dir / "journal" / "0"
    shutil.copytree(journal, stopped.data_dir.parent / "copy")
    shutil.rmtree(stopped.data_dir / "journal")
    message = refusal(stopped)
    assert f"{journal}, {journal.with_name('65535')} are missing" in message
    assert not journal.exists()
    command = message.split("with: ")[1]
    subprocess.run(command, shell=True, check=True)
    stopped.start()
    with connected(stopped.mqtt_port, "token-0") as client:
        client.publish_acknowledged(b'{"ts":2,"values":{"n":2}}')
    stopped.kill_all()
    stopped.start()  # what came after the loss is not taken for what was there before
    assert query(stopped, "d0", "n") == {2: 2}
    # Lost once more: what was accepted then is not accepted now.
    stopped.kill_all()
    shutil.rmtree(journal)
    assert f"{journal} is missing" in refusal(stopped)


def test_old_copy_of_a_journal_is_not_served(stopped: Node) -> None:
    journal = stopped.data_dir / "journal" / "0"
    shutil.copytree(journal, stopped.data_dir.parent / "copy")
    stopped.start()
    assert stopped.stop() == 0
    shutil.rmtree(journal)
    shutil.copytree(stopped.data_dir.parent / "copy", journal)
    stopped.spawn()
    wait_until(lambda: lines(stopped, "process keeps failing"), 15, "worker parked")
    errors = {line["error"] for line in lines(stopped, "cannot open the journal")}
    assert len(errors) == 1
    assert f"{journal} is an old copy" in str(errors)


@pytest.mark.parametrize("name", ["registry", "series", "attributes"])
def test_missing_store_is_noticed(stopped: Node, name: str) -> None:
    shutil.rmtree(stopped.data_dir / name)
    message = refusal(stopped)
    assert f"{stopped.data_dir / name} is missing" in message
    if name == "registry":
        assert "rm " not in message
    else:
        subprocess.run(message.split("with: ")[1], shell=True, check=True)
        stopped.start()
        assert query(stopped, "d0", "n") == {1: 1}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_directory_with_parts_of_another_owner(tmp_path: Path) -> None:
    """The root of a file system has a lost+found; and a directory can be taken away later."""
    wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    with tempfile.TemporaryDirectory() as found:  # below tmp_path nobody else may look
        data = Path(found) / "data"
        data.mkdir()
        (data / "lost+found").mkdir(mode=0o700)
        os.chmod(found, 0o755)
        os.chown(data, 65534, 65534)
        with running_node(data, workers=1, wrapper=wrapper, log=tmp_path / "log") as node:
            runs_in_it(node)


def runs_in_it(node: Node) -> None:
    (token,) = node.add_devices(1)
    pid = node.controller_pid()
    with connected(node.mqtt_port, token) as client:
        client.publish_acknowledged(PAYLOAD)
    wait_until(lambda: node.metric("tbfast_disk_used_bytes") > 0, what="it was measured")
    os.chmod(node.data_dir, 0o555)
    assert node.controller_pid() == pid
    assert node.stop() == 0
    os.chmod(node.data_dir, 0o755)
    assert lines(node, "a socket stays")
    assert not lines(node, "process ")
    node.start()
    assert query(node, "d0", "n") == {1: 1}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_directory_of_another_owner(stopped: Node) -> None:
    """Started once as root, then as the service's user."""
    stopped.wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    os.chmod(stopped.data_dir.parent, 0o755)
    message = refusal(stopped)
    assert str(stopped.data_dir) in message
    assert "owner" in message
