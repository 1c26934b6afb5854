"""MQTT clients of other people behind one small face, so that one flow can be played by each."""

import asyncio
import contextlib
import json
import ssl
import threading
from collections.abc import Coroutine
from typing import Any, Protocol

import aiomqtt
import gmqtt
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.waiting import wait_until

WAIT_S = 10.0


class Talker(Protocol):
    """A connected client; everything it publishes is QoS 1 and acknowledged on return."""

    inbox: "Inbox"

    def subscribe(self, *filters: str) -> list[int]:
        """Subscribes with QoS 1; the codes of the SUBACK."""

    def publish(self, topic: str, payload: str) -> None: ...

    def close(self) -> None: ...


class Inbox:
    """JSON messages received, by topic."""

    def __init__(self) -> None:
        self._got: dict[str, list[Any]] = {}

    def put(self, topic: str, payload: bytes | str) -> None:
        self._got.setdefault(topic, []).append(json.loads(payload))

    def next(self, topic: str) -> Any:
        """The oldest message of a topic, waited for."""
        wait_until(lambda: self._got.get(topic), WAIT_S, f"a message on {topic}")
        return self._got[topic].pop(0)


class PahoTalker:
    def __init__(self, port: int, token: str | None, version: int, tls: ssl.SSLContext | None):
        protocol = {4: paho.MQTTv311, 5: paho.MQTTv5}[version]
        self.inbox = Inbox()
        self._granted: dict[int, list[int]] = {}
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=protocol)
        if token is not None:
            self._client.username_pw_set(token)
        if tls is not None:
            self._client.tls_set_context(tls)
        self._client.on_message = lambda c, d, m: self.inbox.put(m.topic, m.payload)
        self._client.on_subscribe = lambda c, d, mid, codes, p: self._granted.update(
            {mid: [code.value for code in codes]}
        )
        self._client.connect("localhost", port)
        self._client.loop_start()
        wait_until(self._client.is_connected, WAIT_S, "paho is connected")

    def subscribe(self, *filters: str) -> list[int]:
        _, mid = self._client.subscribe([(f, 1) for f in filters])
        wait_until(lambda: mid in self._granted, WAIT_S, "SUBACK")
        return self._granted[mid or 0]

    def publish(self, topic: str, payload: str) -> None:
        info = self._client.publish(topic, payload, qos=1)
        info.wait_for_publish(WAIT_S)
        assert info.is_published()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class _Looped:
    """An asyncio client on a loop of its own thread."""

    def __init__(self) -> None:
        self.inbox = Inbox()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()


class AiomqttTalker(_Looped):
    def __init__(self, port: int, token: str | None, version: int, tls: ssl.SSLContext | None):
        super().__init__()
        self._run(self._open(port, token, version, tls))

    async def _open(
        self, port: int, token: str | None, version: int, tls: ssl.SSLContext | None
    ) -> None:
        protocol = {4: aiomqtt.ProtocolVersion.V311, 5: aiomqtt.ProtocolVersion.V5}[version]
        self._client = aiomqtt.Client(
            "localhost", port, username=token, protocol=protocol, tls_context=tls, timeout=WAIT_S
        )
        await self._client.__aenter__()
        self._hearing = asyncio.create_task(self._hear())

    async def _hear(self) -> None:
        async for message in self._client.messages:
            assert isinstance(message.payload, bytes)
            self.inbox.put(str(message.topic), message.payload)

    def subscribe(self, *filters: str) -> list[int]:
        codes = self._run(self._client.subscribe([(f, 1) for f in filters]))
        return [code if isinstance(code, int) else code.value for code in codes]

    def publish(self, topic: str, payload: str) -> None:
        self._run(self._client.publish(topic, payload, qos=1))

    def close(self) -> None:
        self._run(self._leave())
        self._end()

    async def _leave(self) -> None:
        self._hearing.cancel()
        await asyncio.gather(self._hearing, return_exceptions=True)
        await self._client.__aexit__(None, None, None)


class GmqttTalker(_Looped):
    def __init__(self, port: int, token: str | None, version: int, tls: ssl.SSLContext | None):
        super().__init__()
        self._granted: dict[int, list[int]] = {}
        self._run(self._open(port, token, version, tls))

    async def _open(
        self, port: int, token: str | None, version: int, tls: ssl.SSLContext | None
    ) -> None:
        self._client = gmqtt.Client("gmqtt")
        if token is not None:
            self._client.set_auth_credentials(token)
        self._client.on_message = self._hear
        self._client.on_subscribe = lambda c, mid, codes, properties: self._granted.update(
            {mid: list(codes)}
        )
        await self._client.connect("localhost", port, ssl=tls or False, version=version)

    async def _hear(
        self, client: Any, topic: str, payload: bytes, qos: int, properties: Any
    ) -> int:
        self.inbox.put(topic, payload)
        return 0

    def subscribe(self, *filters: str) -> list[int]:
        mid = self._run(self._subscribe(filters))
        wait_until(lambda: mid in self._granted, WAIT_S, "SUBACK")
        return self._granted[mid]

    async def _subscribe(self, filters: tuple[str, ...]) -> int:
        mid: int = self._client.subscribe([gmqtt.Subscription(f, qos=1) for f in filters])
        return mid

    def publish(self, topic: str, payload: str) -> None:
        self._run(self._publish(topic, payload))

    async def _publish(self, topic: str, payload: str) -> None:
        self._client.publish(topic, payload, qos=1)
        await self._client._persistent_storage.wait_empty()

    def close(self) -> None:
        # The server's own DISCONNECT (MQTT spec 1.7) comes behind gmqtt's end of TLS, which asyncio
        # on the client's side makes an error of.
        with contextlib.suppress(ssl.SSLError):
            self._run(self._client.disconnect())
        self._end()


TALKERS = {"paho": PahoTalker, "aiomqtt": AiomqttTalker, "gmqtt": GmqttTalker}
