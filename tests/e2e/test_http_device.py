"""The HTTP device API on real sockets, with curl (HTTP spec 2, 3, 4)."""

import contextlib
import http.client
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tbfast.cli.client import SOCKET_NAME
from tbfast.control.links import POSITION_TIMEOUT_S
from tbfast.limits import HTTP_POLLS_PER_DEVICE
from tests.support.server import Server
from tests.support.waiting import wait_until


def curl(server: Server, path: str, *words: str) -> tuple[int, str]:
    """Status and body of one request; words: --request METHOD, --data TEXT.

    By curl where it is installed, else by Python's own client.
    """
    if shutil.which("curl") is None:
        return _without_curl(server, path, dict(zip(words[::2], words[1::2], strict=True)))
    url = f"http://127.0.0.1:{server.http_port}{path}"
    done = subprocess.run(
        ["curl", "--silent", "--max-time", "20", "--write-out", "\n%{http_code}", *words, url],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def _without_curl(server: Server, path: str, words: dict[str, str]) -> tuple[int, str]:
    data = words.get("--data")
    method = words.get("--request", "GET" if data is None else "POST")
    with connection(server) as peer:
        peer.request(method, path, data)
        answer = peer.getresponse()
        return answer.status, answer.read().decode()


def post(server: Server, path: str, body: str) -> tuple[int, str]:
    # What curl sends for --data: a form's content type, which changes nothing.
    return curl(server, path, "--data", body)


def connection(server: Server) -> contextlib.closing[http.client.HTTPConnection]:
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=20))


def http_over_owner(server: Server) -> contextlib.closing[http.client.HTTPConnection]:
    """Where bodies may be any bytes."""
    peer = http.client.HTTPConnection("localhost", timeout=20)
    peer.sock = socket.socket(socket.AF_UNIX)
    peer.sock.connect(str(server.data_dir / SOCKET_NAME))
    return contextlib.closing(peer)


# --- telemetry and attributes ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        ('{"n":25,"ok":true}', [25]),
        ('{"ts":5,"values":{"n":26}}', [26]),
        ('[{"ts":1,"values":{"n":1}},{"n":2}]', [1, 2]),
        ("{n:7}", [7]),
        ("{}", []),
        ("[]", []),
        ('{"n":null}', []),
    ],
)
def test_telemetry_is_stored_when_200_arrives(
    server: Server, token: str, body: str, stored: list[int]
) -> None:
    assert post(server, f"/api/v1/{token}/telemetry", body) == (200, "")
    assert server.values(token, "n") == stored


@pytest.mark.parametrize("body", ["[", "5", "null", '"x"', '[{"n":1},5]', '{"ts":"x","values":{}}'])
def test_bad_telemetry_is_refused_whole(server: Server, token: str, body: str) -> None:
    status, text = post(server, f"/api/v1/{token}/telemetry", body)
    assert status == 400
    assert text
    assert server.values(token, "n") == []


@pytest.mark.parametrize(
    ("kind", "body", "stored"),
    [
        ("application/json; charset=iso-8859-1", b'{"n":"\xe9"}', ["\xe9"]),
        ('text/plain;charset="windows-1251"', b'{"n":"\xe9"}', ["\u0439"]),
        ("application/json;charset=UTF-16", '{"n":"\u20ac"}'.encode("utf-16"), ["\u20ac"]),
        ("application/json; charset=utf-8", '{"n":"\u20ac"}'.encode(), ["\u20ac"]),
        ("application/json; charset=us-ascii", b'{"n":"\xe9"}', ["\ufffd"]),
        ("application/json; charset=punycode", b'{"n":1}', []),
    ],
)
def test_a_body_is_read_in_the_charset_it_names(
    server: Server, token: str, kind: str, body: bytes, stored: list[str]
) -> None:
    with connection(server) as peer:
        path = f"/api/v1/{token}/telemetry"
        peer.request("POST", path, body, {"Content-Type": kind})
        assert peer.getresponse().status == (200 if stored else 415)
    assert server.values(token, "n") == stored


def test_attributes_are_read_back_at_once(server: Server, token: str) -> None:
    path = f"/api/v1/{token}/attributes"
    assert curl(server, path) == (200, "{}")
    assert post(server, path, '{"fw":"v1","n":5}') == (200, "")
    assert json.loads(curl(server, path + "?clientKeys=fw,absent")[1]) == {"client": {"fw": "v1"}}
    server.save_attributes(token, "SHARED_SCOPE", {"limit": 3, "other": 4})
    everything = {"client": {"fw": "v1", "n": 5}, "shared": {"limit": 3, "other": 4}}
    assert json.loads(curl(server, path)[1]) == everything
    assert json.loads(curl(server, path + "?sharedKeys=limit&sharedKeys=other")[1]) == {
        "shared": {"limit": 3, "other": 4}
    }
    assert post(server, path, "[1]")[0] == 400


def test_what_people_write_is_utf8_for_everybody(server: Server, token: str) -> None:
    """What is not, is replaced: one bad byte must not make all answers unreadable."""
    path = f"/api/plugins/telemetry/{server.device_id(token)}/SHARED_SCOPE"
    with http_over_owner(server) as peer:
        peer.request("POST", path, b'{"a":"x\xff","b":{"c":"\xc0"}}')
        assert peer.getresponse().status == 200
    shared = {"a": "x\ufffd", "b": {"c": "\ufffd"}}
    assert server.attributes(token, "SHARED_SCOPE") == shared
    assert json.loads(curl(server, f"/api/v1/{token}/attributes")[1]) == {"shared": shared}


def test_what_was_written_through_another_worker_is_read_back() -> None:
    """Each request on a connection of its own, so on any of the workers."""
    with Server(workers=2) as server:
        server.add_device("d", "t")
        for n in range(40):
            with connection(server) as peer:
                peer.request("POST", "/api/v1/t/attributes", json.dumps({"n": n}))
                assert peer.getresponse().status == 200
            with connection(server) as peer:
                peer.request("GET", "/api/v1/t/attributes?clientKeys=n")
                assert json.loads(peer.getresponse().read()) == {"client": {"n": n}}


@pytest.mark.parametrize("body", ["{}", '{"fw":null}'])
def test_a_read_does_not_wait_for_a_post_of_nothing(server: Server, token: str, body: str) -> None:
    path = f"/api/v1/{token}/attributes"
    assert post(server, path, '{"fw":"v1"}') == (200, "")
    assert post(server, path, body) == (200, "")
    assert post(server, f"/api/v1/{token}/telemetry", body) == (200, "")
    took_s = []
    for _ in range(3):  # a busy machine may be slow, but not each time
        began = time.monotonic()
        assert curl(server, path) == (200, '{"client":{"fw":"v1"}}')
        took_s.append(time.monotonic() - began)
    assert min(took_s) < POSITION_TIMEOUT_S


def test_text_that_people_write_stays_text(server: Server, token: str) -> None:
    """Versions and phone numbers are none of the numbers that devices send as text."""
    given = {"version": "1.10", "phone": "007", "x": 1.5, "on": True, "list": ["1"]}
    server.save_attributes(token, "SHARED_SCOPE", given)
    assert server.attributes(token, "SHARED_SCOPE") == given
    status, text = curl(server, f"/api/v1/{token}/attributes")
    assert (status, json.loads(text)) == (200, {"shared": given})


def test_what_needs_a_device_or_a_body(server: Server, token: str) -> None:
    assert post(server, "/api/v1/no-such-token/telemetry", "[") == (401, "")
    assert curl(server, f"/api/v1/{token}/telemetry", "--request", "POST")[0] == 400
    assert curl(server, f"/api/v1/{token}/rpc/1", "--request", "POST")[0] == 400
    status, text = curl(server, f"/api/v1/{token}/telemetry", "--request", "PUT", "--data", "{}")
    assert (status, json.loads(text)["errorCode"]) == (405, 31)
    assert curl(server, f"/api/v1/{token}/nothing")[0] == 404
    assert curl(server, f"/api/v1/{token}//telemetry", "--data", "{}")[0] == 400
    assert curl(server, f"/api/v1/{token}%00/telemetry", "--data", "{}")[0] == 400


def test_a_body_beyond_the_limit_is_refused_before_it_is_read(server: Server, token: str) -> None:
    with connection(server) as peer:
        peer.putrequest("POST", f"/api/v1/{token}/rpc/1")
        peer.putheader("Content-Length", "65537")
        peer.endheaders()
        answer = peer.getresponse()
        assert answer.status == 413
        assert isinstance(json.loads(answer.read()), str)


def test_head_options_and_cross_origin(server: Server, token: str) -> None:
    with connection(server) as peer:
        peer.request("HEAD", f"/api/v1/{token}/attributes")
        answer = peer.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        assert answer.getheader("Content-Length") == "2"
        peer.request(
            "OPTIONS",
            f"/api/v1/{token}/telemetry",
            headers={"Origin": "http://a", "Access-Control-Request-Method": "POST"},
        )
        answer = peer.getresponse()
        answer.read()
        assert answer.getheader("Allow") == "POST, OPTIONS"
        assert answer.getheader("Access-Control-Allow-Origin") == "http://a"
        assert answer.getheader("Access-Control-Allow-Methods") == "POST"


def test_pipelined_requests_are_answered_in_order(server: Server, token: str) -> None:
    with connection(server) as peer:
        peer.connect()
        bodies = [json.dumps({"ts": n, "values": {"n": n}}) for n in range(1, 10)]
        requests = "".join(
            f"POST /api/v1/{token}/telemetry HTTP/1.1\r\nHost: a\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
            for body in bodies
        )
        read = f"GET /api/v1/{token}/attributes HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        peer.sock.sendall((requests + read).encode())
        answer = b""
        while more := peer.sock.recv(65_536):
            answer += more
    assert answer.count(b"HTTP/1.1 200") == 10
    assert answer.endswith(b"{}")
    assert server.values(token, "n") == list(range(1, 10))


# --- waiting ---------------------------------------------------------------------------------


def in_background(work: Any) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    return thread, results


def test_a_poll_without_news_ends_in_408(server: Server, token: str) -> None:
    for what in ("attributes/updates", "rpc"):
        assert curl(server, f"/api/v1/{token}/{what}?timeout=100") == (408, "")
        assert curl(server, f"/api/v1/{token}/{what}?timeout=-1") == (408, "")
        assert curl(server, f"/api/v1/{token}/{what}?timeout=x")[0] == 400


def test_a_poll_gets_the_next_change_of_shared_attributes(server: Server, token: str) -> None:
    def polled(change: Any) -> Any:
        path = f"/api/v1/{token}/attributes/updates?timeout=15000"
        thread, results = in_background(lambda: curl(server, path))
        while thread.is_alive():
            change()
            thread.join(0.2)
        status, body = results[0]
        assert status == 200
        return json.loads(body)

    saved = polled(lambda: server.save_attributes(token, "SHARED_SCOPE", {"a": [1, {"b": None}]}))
    assert saved == {"a": [1, {}]}
    deleted = polled(lambda: server.delete_attributes(token, "SHARED_SCOPE", "a", "b"))
    assert deleted == {"deleted": ["a", "b"]}


def test_a_call_reaches_a_poll_and_its_answer_the_caller(server: Server, token: str) -> None:
    caller, answers = in_background(lambda: server.call(token, "twoway", "setGpio", {"pin": 7}))
    status, body = curl(server, f"/api/v1/{token}/rpc?timeout=15000")
    assert status == 200
    assert json.loads(body) == {"id": 0, "method": "setGpio", "params": {"pin": 7}}
    assert post(server, f"/api/v1/{token}/rpc/0", '{"done":true}') == (200, "")
    caller.join(20)
    assert answers == [(200, {"done": True})]
    assert post(server, f"/api/v1/{token}/rpc/0", "again") == (200, "")  # nobody waits for it
    assert post(server, f"/api/v1/{token}/rpc/99999999999", "5")[0] == 400


def test_calls_and_answers_are_utf8(server: Server, token: str) -> None:
    target = f"/api/rpc/twoway/{server.device_id(token)}"
    with http_over_owner(server) as peer:
        for bad in (b'"params":"\xff"', b'"params":{"a":["\xff"]}', b'"additionalInfo":"\xff"'):
            peer.request("POST", target, b'{"method":"m","persistent":true,%b}' % bad)
            answer = peer.getresponse()
            assert (answer.status, json.loads(answer.read())["errorCode"]) == (400, 31)
    thread, answers = in_background(lambda: server.rest("POST", target, {"method": "m"}))
    _, call = curl(server, f"/api/v1/{token}/rpc?timeout=15000")
    with connection(server) as peer:
        peer.request("POST", f"/api/v1/{token}/rpc/{json.loads(call)['id']}", b'{"a":"\xff"}')
        assert peer.getresponse().status == 200
    thread.join(20)
    assert answers == [(200, {"a": "\ufffd"})]


def test_a_device_calls_the_server(server: Server, token: str) -> None:
    path = f"/api/v1/{token}/rpc"
    status, body = post(server, path, '{"method":"getCurrentTime","params":{}}')
    assert status == 200
    assert int(body) > 1_700_000_000_000
    assert post(server, path, '{"method":"getCurrentTime"}')[0] == 400
    assert post(server, path, '{"params":{}}')[0] == 400


@pytest.mark.parametrize(
    ("change", "answer"),
    [("removed", (403, "Device was deleted!")), ("given another token", (401, ""))],
)
def test_polls_end_with_what_lets_them_in(
    server: Server, change: str, answer: tuple[int, str]
) -> None:
    token = f"poller {change}".replace(" ", "-")
    server.add_device(change, token)
    path = f"/api/v1/{token}/attributes/updates?timeout=15000"
    polls = [in_background(lambda: curl(server, path)) for _ in range(9)]
    # One more than the bound is refused: then all the others wait.
    wait_until(lambda: any(results for _, results in polls))
    if change == "removed":
        server.remove_device(change)
    else:
        device = server.device_id(change)
        _, credentials = server.rest("GET", f"/api/device/{device}/credentials")
        changed = {**credentials, "credentialsId": "another-token"}
        assert server.rest("POST", "/api/device/credentials", changed)[0] == 200
    for thread, _ in polls:
        thread.join(20)
    answers = sorted(results[0] for _, results in polls)
    assert [a for a in answers if a[0] != 429] == [answer] * 8


@contextlib.contextmanager
def open_poll(server: Server, path: str) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as sock:
        sock.sendall(f"GET {path}?timeout=15000 HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        time.sleep(0.1)  # it waits
        yield sock


def test_a_closed_poll_takes_no_call(server: Server, token: str) -> None:
    """A client that gave up: the call waits for its next poll instead of being lost."""
    path = f"/api/v1/{token}/rpc"
    for _ in range(2 * HTTP_POLLS_PER_DEVICE):  # nor do they count as waiting
        with open_poll(server, path):
            pass
    time.sleep(0.1)
    target = f"/api/rpc/oneway/{server.device_id(token)}"
    thread, calls = in_background(lambda: server.rest("POST", target, {"method": "m"}))
    time.sleep(0.1)
    status, body = curl(server, path + "?timeout=5000")
    assert (status, json.loads(body)["method"]) == (200, "m")
    thread.join(20)
    assert calls == [(200, None)]


@pytest.mark.parametrize("path", ["rpc", "attributes/updates"])
def test_a_poll_whose_client_ends_its_side_ends(server: Server, token: str, path: str) -> None:
    with open_poll(server, f"/api/v1/{token}/{path}") as sock:
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(10)  # less than the poll would last
        assert sock.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert sock.recv(4096) == b""


def test_more_polls_of_a_device_than_the_bound_are_refused(server: Server, token: str) -> None:
    path = f"/api/v1/{token}/rpc?timeout=3000"
    polls = [in_background(lambda: curl(server, path)) for _ in range(9)]
    for thread, _ in polls:
        thread.join(20)
    assert sorted(results[0][0] for _, results in polls) == [408] * 8 + [429]


# --- reading it back -------------------------------------------------------------------------


def test_telemetry_is_aggregated_over_rest_and_on_the_command_line(
    own_server: Server,
) -> None:
    own_server.add_device("d", "t")
    points = [{"ts": n * 1000, "values": {"n": n, "w": n / 4}} for n in range(10)]
    assert post(own_server, "/api/v1/t/telemetry", json.dumps(points)) == (200, "")
    expected = {
        "n": [{"ts": 2500, "value": 2.0}, {"ts": 7500, "value": 7.0}],
        "w": [{"ts": 2500, "value": 0.5}, {"ts": 7500, "value": 1.75}],
    }
    device = own_server.device_id("d")
    path = f"/api/plugins/telemetry/DEVICE/{device}/values/timeseries"
    bounds = "startTs=0&endTs=10000&agg=AVG&interval=5000&useStrictDataTypes=true"
    assert own_server.rest("GET", f"{path}?{bounds}") == (200, expected)
    for limit in (0, 1, -1):  # it is for points, not for buckets
        assert own_server.rest("GET", f"{path}?{bounds}&limit={limit}") == (200, expected)
    words = ["query", "d", "--agg", "avg", "--interval", "5000", "--start", "0", "--end", "10000"]
    assert json.loads(own_server.cli(*words, "--json")) == expected
    assert own_server.stop() == 0
    assert json.loads(own_server.cli(*words, "--json")) == expected  # sealed, by nobody running


# --- faults ----------------------------------------------------------------------------------


def test_known_devices_are_served_while_the_controller_is_away(own_server: Server) -> None:
    own_server.add_device("d", "known")
    assert post(own_server, "/api/v1/known/telemetry", '{"n":1}') == (200, "")
    with own_server.paused("controller"):
        assert post(own_server, "/api/v1/known/telemetry", '{"n":2}') == (200, "")
        assert post(own_server, "/api/v1/known/attributes", '{"a":2}') == (200, "")
    wait_until(lambda: own_server.values("d", "n") == [1, 2])
    assert own_server.attributes("d", "CLIENT_SCOPE") == {"a": 2}


def test_the_time_is_told_while_the_controller_is_away(own_server: Server) -> None:
    own_server.add_device("d", "known")
    post(own_server, "/api/v1/known/telemetry", "{}")
    with own_server.paused("controller"):
        body = '{"method":"getCurrentTime","params":null}'
        status, text = post(own_server, "/api/v1/known/rpc", body)
    assert status == 200
    assert int(text) > 1_700_000_000_000


def test_what_was_answered_survives_kill_9(own_server: Server) -> None:
    own_server.add_device("d", "t")
    with connection(own_server) as peer:
        for n in range(1, 51):
            peer.request("POST", "/api/v1/t/telemetry", json.dumps({"ts": n, "values": {"n": n}}))
            answer = peer.getresponse()
            answer.read()
            assert answer.status == 200
    own_server.kill9("worker-0")
    wait_until(lambda: own_server.values("d", "n") == list(range(1, 51)))
