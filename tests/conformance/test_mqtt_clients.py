"""Python clients nobody here wrote, unmodified, against a real server."""

import asyncio
import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import aiomqtt
import gmqtt
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.server import Server
from tests.support.waiting import wait_until

TELEMETRY = "v1/devices/me/telemetry"
ANSWER_S = 10.0


def record(number: int) -> str:
    return json.dumps({"ts": number, "values": {"n": number}})


# --- paho-mqtt: the client of most Python programs -------------------------------------------


class Paho:
    """paho with what it heard."""

    def __init__(
        self, server: Server, token: str, version: int, *, inflight: int = 20, **fields: Any
    ) -> None:
        protocol = {3: paho.MQTTv31, 4: paho.MQTTv311, 5: paho.MQTTv5}[version]
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=protocol, **fields)
        self.client.username_pw_set(token)
        self.client.max_inflight_messages_set(inflight)
        self.connected: list[Any] = []
        self.properties: list[Any] = []
        self.disconnected: list[Any] = []
        self.granted: list[list[int]] = []
        self.published: dict[int, int] = {}
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = lambda c, u, flags, code, p: self.disconnected.append(code)
        self.client.on_subscribe = lambda c, u, mid, codes, p: self.granted.append(
            [code.value for code in codes]
        )
        self.client.on_publish = lambda c, u, mid, code, p: self.published.update({mid: code.value})
        self.client.connect("127.0.0.1", server.mqtt_port)
        self.client.loop_start()
        wait_until(lambda: self.connected)

    def _on_connect(self, client: Any, data: Any, flags: Any, code: Any, properties: Any) -> None:
        self.properties.append(properties)
        self.connected.append(code)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextlib.contextmanager
def paho_client(server: Server, token: str, version: int, **fields: Any) -> Iterator[Paho]:
    one = Paho(server, token, version, **fields)
    try:
        yield one
    finally:
        one.close()


@pytest.mark.parametrize("version", [3, 4, 5])
def test_paho_publishes_with_every_qos(server: Server, token: str, version: int) -> None:
    with paho_client(server, token, version, client_id="x" * 12) as one:
        sent = [one.client.publish(TELEMETRY, record(n), qos=n % 3) for n in range(1, 40)]
        for info in sent:
            info.wait_for_publish(ANSWER_S)
        assert set(one.published.values()) == {0}
        assert len(one.published) == len(sent)
        # QoS 0 comes without an answer; a QoS 1 message behind it has passed it by.
        assert server.values(token, "n") == list(range(1, 40))
    assert one.disconnected[-1] == 0


@pytest.mark.parametrize("version", [4, 5])
def test_paho_subscribes(server: Server, token: str, version: int) -> None:
    with paho_client(server, token, version) as one:
        one.client.subscribe([("v1/devices/me/attributes", 1), ("v1/devices/me/rpc/request/+", 2)])
        one.client.subscribe("v2/fw/response/+")
        wait_until(lambda: len(one.granted) == 2)
        assert one.granted == [[1, 1], [0x8F if version == 5 else 0x80]]
        gone: list[int] = []
        one.client.on_unsubscribe = lambda c, u, mid, codes, p: gone.append(mid)
        one.client.unsubscribe("v1/devices/me/attributes")
        wait_until(lambda: gone)


@pytest.mark.parametrize("version", [4, 5])
def test_paho_hears_why_it_is_refused(server: Server, version: int) -> None:
    with paho_client(server, "no such token", version) as one:
        expected = "Bad user name or password" if version == 5 else "Not authorized"
        assert str(one.connected[0]) == expected


def test_paho_reads_the_bounds_and_reasons_of_mqtt_5(server: Server, token: str) -> None:
    with paho_client(server, token, 5) as one:
        announced = one.properties[0]
        assert announced.AssignedClientIdentifier
        assert (announced.TopicAliasMaximum, announced.ReceiveMaximum) == (16, 1_024)
        info = one.client.publish(TELEMETRY, "{", qos=1)
        wait_until(lambda: info.mid in one.published)
        assert one.published[info.mid] == 0x99
        properties = paho.Properties(paho.PacketTypes.PUBLISH)
        properties.TopicAlias = 3
        one.client.publish(TELEMETRY, record(1), qos=1, properties=properties)
        info = one.client.publish("", record(2), qos=1, properties=properties)
        wait_until(lambda: info.mid in one.published)
        assert one.published[info.mid] == 0
    assert server.values(token, "n") == [1, 2]


def test_paho_comes_back_after_a_takeover(server: Server, token: str) -> None:
    with paho_client(server, token, 5) as one, paho_client(server, token, 4) as two:
        wait_until(lambda: one.disconnected)
        assert str(one.disconnected[0]) == "Session taken over"
        one.client.loop_stop()
        two.client.publish(TELEMETRY, record(1), qos=1).wait_for_publish(ANSWER_S)
    assert server.values(token, "n") == [1]


def test_paho_with_two_hundred_messages_in_flight(server: Server, token: str) -> None:
    with paho_client(server, token, 4, inflight=200) as one:
        sent = [one.client.publish(TELEMETRY, record(n), qos=1 + n % 2) for n in range(1, 1_001)]
        for info in sent:
            info.wait_for_publish(ANSWER_S)
    assert server.values(token, "n") == list(range(1, 1_001))


# --- aiomqtt: paho for asyncio ---------------------------------------------------------------


@pytest.mark.parametrize("version", [aiomqtt.ProtocolVersion.V311, aiomqtt.ProtocolVersion.V5])
def test_aiomqtt(server: Server, token: str, version: aiomqtt.ProtocolVersion) -> None:
    async def run() -> None:
        async with aiomqtt.Client(
            "127.0.0.1", server.mqtt_port, username=token, protocol=version, timeout=ANSWER_S
        ) as client:
            await client.subscribe("v1/devices/me/rpc/request/+", qos=1)
            async with asyncio.TaskGroup() as tasks:
                for n in range(1, 31):
                    tasks.create_task(client.publish(TELEMETRY, record(n), qos=n % 3))
            await client.publish(TELEMETRY, record(31), qos=1)

    asyncio.run(run())
    assert server.values(token, "n") == list(range(1, 32))


# --- gmqtt: a client of its own, MQTT 5 first ------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
def test_gmqtt(server: Server, token: str, version: int) -> None:
    async def run() -> dict[str, Any]:
        seen: dict[str, Any] = {}
        client = gmqtt.Client("gmqtt")
        client.set_auth_credentials(token)
        subscribed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        client.on_connect = lambda c, flags, code, properties: seen.update(
            code=code, properties=properties
        )
        client.on_subscribe = lambda c, mid, qos, properties: subscribed.set_result(qos)
        await client.connect("127.0.0.1", server.mqtt_port, version=version)
        client.subscribe("v1/devices/me/attributes", qos=1)
        seen["granted"] = await asyncio.wait_for(subscribed, ANSWER_S)
        for n in range(1, 21):
            client.publish(TELEMETRY, record(n), qos=n % 3)
        await asyncio.wait_for(client._persistent_storage.wait_empty(), ANSWER_S)
        await client.disconnect()
        return seen

    seen = asyncio.run(run())
    assert (seen["code"], list(seen["granted"])) == (0, [1])
    if version == 5:
        assert seen["properties"]["topic_alias_maximum"] == [16]
        assert seen["properties"]["receive_maximum"] == [1_024]
    assert server.values(token, "n") == list(range(1, 21))


def run_in_threads(jobs: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_twenty_paho_clients_at_once(server: Server) -> None:
    names = [server.add_device(f"crowd-{i}") for i in range(20)]

    def job(name: str) -> None:
        with paho_client(server, name, 4) as one:
            for n in range(1, 21):
                one.client.publish(TELEMETRY, record(n), qos=1).wait_for_publish(ANSWER_S)

    run_in_threads([lambda name=name: job(name) for name in names])  # type: ignore[misc]
    for name in names:
        assert server.values(name, "n") == list(range(1, 21))


# --- the device API beside telemetry ---------------------------------------------------------


class Inbox:
    """Messages a paho client received, by topic."""

    def __init__(self, one: Paho) -> None:
        self.got: dict[str, list[Any]] = {}
        one.client.on_message = self._on_message

    def _on_message(self, client: Any, data: Any, message: Any) -> None:
        self.got.setdefault(message.topic, []).append(json.loads(message.payload))

    def next(self, topic: str) -> Any:
        """The oldest message of a topic, waited for."""
        wait_until(lambda: self.got.get(topic))
        return self.got[topic].pop(0)


def subscribe(one: Paho, *filters: str) -> None:
    before = len(one.granted)
    one.client.subscribe([(f, 1) for f in filters])
    wait_until(lambda: len(one.granted) > before)


@pytest.mark.parametrize("version", [4, 5])
def test_paho_writes_and_reads_attributes(server: Server, token: str, version: int) -> None:
    with paho_client(server, token, version) as one:
        inbox = Inbox(one)
        subscribe(one, "v1/devices/me/attributes", "v1/devices/me/attributes/response/+")
        # Not waited for: a device that asks right behind its write reads what it wrote.
        one.client.publish("v1/devices/me/attributes", '{fw:"v1.2",n:5,"gone":null}', qos=1)
        one.client.publish(
            "v1/devices/me/attributes/request/007",
            '{"clientKeys":"fw,n,absent","sharedKeys":"limit"}',
            qos=1,
        )
        reply = "v1/devices/me/attributes/response/"
        assert inbox.next(reply + "7") == {"client": {"fw": "v1.2", "n": 5}}
        server.save_attributes(token, "SHARED_SCOPE", {"limit": 42.5, "on": True})
        assert inbox.next("v1/devices/me/attributes") == {"limit": 42.5, "on": True}
        server.save_attributes(token, "SERVER_SCOPE", {"secret": 1})  # never seen by the device
        one.client.publish("v1/devices/me/attributes/request/8", "{}", qos=1)
        assert inbox.next(reply + "8") == {
            "client": {"fw": "v1.2", "n": 5},
            "shared": {"limit": 42.5, "on": True},
        }
        server.delete_attributes(token, "SHARED_SCOPE", "limit", "never")
        assert inbox.next("v1/devices/me/attributes") == {"deleted": ["limit", "never"]}
        one.client.publish("v2/a/req/j/9", '{"sharedKeys":"limit"}', qos=0)
        assert inbox.next("v2/a/res/j/9") == {}


def running_controller(server: Server) -> int | None:
    """Its process, None while it does not answer."""
    try:
        return server.pids()["controller"]
    except (OSError, http.client.HTTPException):
        return None


def test_attributes_survive_kill_9_of_the_controller(own_server: Server) -> None:
    own_server.add_device("d", "t")
    with paho_client(own_server, "t", 5) as one:
        one.client.publish("v1/devices/me/attributes", '{"a":1}', qos=1).wait_for_publish(ANSWER_S)
    own_server.save_attributes("d", "SHARED_SCOPE", {"b": 2})
    killed = own_server.kill9("controller")
    wait_until(lambda: running_controller(own_server) not in (None, killed))
    assert own_server.attributes("d", "CLIENT_SCOPE") == {"a": 1}
    assert own_server.attributes("d", "SHARED_SCOPE") == {"b": 2}


@pytest.mark.parametrize("version", [4, 5])
def test_paho_answers_calls_of_the_server(server: Server, token: str, version: int) -> None:
    with paho_client(server, token, version) as one:
        calls: list[tuple[str, Any]] = []

        def on_message(client: Any, data: Any, message: Any) -> None:
            calls.append((message.topic, json.loads(message.payload)))
            answer = message.topic.replace("request", "response")
            client.publish(answer, json.dumps({"done": len(calls)}), qos=1)

        one.client.on_message = on_message
        subscribe(one, "v1/devices/me/rpc/request/+")
        params = {"pin": "23", "value": 1}
        assert server.call(token, "twoway", "setGpio", params) == (200, {"done": 1})
        assert server.call(token, "oneway", "reboot", None) == (200, None)
        wait_until(lambda: len(calls) == 2)
        assert calls == [
            ("v1/devices/me/rpc/request/0", {"method": "setGpio", "params": params}),
            ("v1/devices/me/rpc/request/1", {"method": "reboot", "params": None}),
        ]


def test_a_call_waits_for_the_device_to_subscribe(server: Server, token: str) -> None:
    answers: list[Any] = []
    caller = threading.Thread(
        target=lambda: answers.append(server.call(token, "twoway", "ping", {}))
    )
    caller.start()
    with paho_client(server, token, 4) as one:
        one.client.on_message = lambda client, data, message: client.publish(
            message.topic.replace("req", "res"), '"pong"', qos=1
        )
        subscribe(one, "v2/r/req/+")
        caller.join(ANSWER_S)
    assert answers == [(200, "pong")]


def test_paho_calls_the_server(server: Server, token: str) -> None:
    with paho_client(server, token, 5) as one:
        inbox = Inbox(one)
        one.client.publish(
            "v1/devices/me/rpc/request/1", '{"method":"getCurrentTime","params":{}}', qos=1
        )
        # Delivered although nothing was subscribed.
        assert inbox.next("v1/devices/me/rpc/response/1") > 1_700_000_000_000
        info = one.client.publish("v1/devices/me/rpc/request/2", "[]", qos=1)
        wait_until(lambda: info.mid in one.published)
        assert one.published[info.mid] == 0x99
