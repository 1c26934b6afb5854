"""The real REST application on a real Unix socket, with telemetry that tests put in by hand."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec
import uvicorn

from tbfast._ext.stringify import stringified
from tbfast.config import ActorsRpc, Admin
from tbfast.control.accounts import Accounts
from tbfast.control.attributes import AttributeService
from tbfast.control.claims import Claims
from tbfast.control.device_calls import DeviceCalls
from tbfast.control.packages import PackageService
from tbfast.control.registry import Registry, wall_clock_ms
from tbfast.control.rest import build_app
from tbfast.control.rest.front import build_front
from tbfast.control.rpc import RpcService
from tbfast.control.services import NodeInfo, Services, WorkerInfo
from tbfast.control.sessions import Sessions
from tbfast.control.ws.watches import Watches
from tbfast.errors import ResourceError
from tbfast.model.ranges import RangeQuery, bucket_bounds
from tbfast.store.attributes import AttributeStore
from tbfast.store.layout import Layout
from tbfast.store.packages import PackageFiles
from tbfast.store.space import Space

UPLOAD_BYTES = 1_000_000
NODE = NodeInfo(
    version="1.2.3",
    pid=10,
    supervisor_pid=9,
    uptime_ms=5,
    durability="disk",
    mqtt_port=1883,
    http_port=8080,
    workers=[WorkerInfo(index=0, pid=11, state="serving", connections=2, journal_bytes=77)],
)


class MemorySeries:
    """The obvious series reader: JSON texts of values by device, key and time."""

    def __init__(self) -> None:
        self.points: dict[int, dict[str, dict[int, str]]] = {}
        self.deleted: list[tuple[bool, bool]] = []

    def put(self, device: int, key: str, ts: int, value: str) -> None:
        self.points.setdefault(device, {}).setdefault(key, {})[ts] = value

    async def save(self, device: int, payload: bytes) -> int:
        record = msgspec.json.decode(payload)
        for key, value in record["values"].items():
            self.put(device, key, record["ts"], msgspec.json.encode(value).decode())
        return len(record["values"])

    async def range(self, device: int, query: RangeQuery) -> bytes:
        if query.aggregates:
            bucket_bounds(query)
            return b'{"asked":%s}' % msgspec.json.encode([{"ts": 0, "value": query.aggregation}])
        low = -(1 << 63) if query.start_ms is None else query.start_ms
        high = 1 << 63 if query.end_ms is None else query.end_ms
        found = {}
        for key, points in self._of(device, query.keys).items():
            times = sorted((ts for ts in points if low <= ts < high), reverse=not query.ascending)
            found[key] = [(ts, points[ts]) for ts in times[: query.limit]]
        text = _text(found)
        return stringified(text) if query.strings else text

    async def latest(self, device: int, keys: Sequence[str] | None) -> bytes:
        return await self.range(
            device, RangeQuery(keys=None if keys is None else tuple(keys), limit=1)
        )

    async def latest_of(self, devices: Sequence[int], keys: Sequence[str]) -> list[bytes]:
        return [await self.latest(device, keys) for device in devices]

    async def delete(
        self,
        device: int,
        keys: Sequence[str] | None,
        *,
        start_ms: int | None = None,
        end_ms: int | None = None,
        latest: bool = True,
        rewrite_latest: bool = False,
    ) -> None:
        self.deleted.append((latest, rewrite_latest))
        for points in [p for k, p in self.points[device].items() if keys is None or k in keys]:
            for ts in list(points):
                if (start_ms is None or ts >= start_ms) and (end_ms is None or ts < end_ms):
                    del points[ts]

    async def keys(self, device: int) -> list[str]:
        return sorted(self.points.get(device, {}))

    def _of(self, device: int, keys: Sequence[str] | None) -> dict[str, dict[int, str]]:
        stored = self.points.get(device, {})
        return {key: stored[key] for key in (keys or sorted(stored)) if key in stored}


def _text(found: dict[str, list[tuple[int, str]]]) -> bytes:
    members = []
    for key, points in found.items():
        if points:
            rows = ",".join(f'{{"ts":{ts},"value":{value}}}' for ts, value in points)
            members.append(f"{msgspec.json.encode(key).decode()}:[{rows}]")
    return ("{" + ",".join(members) + "}").encode()


class MemoryFeed:
    """A live feed that tests write to."""

    def __init__(self) -> None:
        self.queues: list[tuple[frozenset[int] | None, asyncio.Queue[bytes | None]]] = []
        self._changed = asyncio.Event()

    def subscribe(self, devices: frozenset[int] | None) -> AsyncIterator[bytes]:
        entry = (devices, asyncio.Queue[bytes | None]())
        self.queues.append(entry)
        self._changed.set()

        async def rows() -> AsyncIterator[bytes]:
            try:
                while (chunk := await entry[1].get()) is not None:
                    if chunk == b"":
                        raise ResourceError("too slow")
                    yield chunk
            finally:
                self.queues.remove(entry)
                self._changed.set()

        return rows()

    def publish(self, device: int, lines: bytes) -> None:
        for devices, queue in self.queues:
            if devices is None or device in devices:
                queue.put_nowait(lines)

    async def subscribers(self, wanted: int) -> None:
        """Wait until there are so many."""
        while len(self.queues) != wanted:
            self._changed.clear()
            await self._changed.wait()

    def too_slow(self) -> None:
        for _devices, queue in self.queues:
            queue.put_nowait(b"")

    def end(self) -> None:
        for _devices, queue in self.queues:
            queue.put_nowait(None)


class FixedNode:
    async def status(self) -> NodeInfo:
        return NODE


class NoUpkeep:
    """This node has no series store."""

    async def seal(self) -> NoReturn:
        raise ResourceError("no series store")

    async def snapshot(self) -> AsyncIterator[bytes]:
        raise ResourceError("no series store")
        yield b""


class _Server(uvicorn.Server):
    """Tells a thread when it accepts connections."""

    def __init__(self, config: uvicorn.Config, listening: threading.Semaphore) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        self._listening.release()


class RunningApp:
    """A controller's interface in a thread of its own."""

    def __init__(self, data_dir: Path, *, demo: bool = False, networks: str = "") -> None:
        self.layout = Layout(data_dir)
        self._admin = Admin(demo_accounts=demo, networks=networks)
        self.ahead_ms = 0  # of the wall clock, for accounts
        self.first_password: str | None = None
        self.layout.prepare()
        self.series = MemorySeries()
        self.feed = MemoryFeed()
        self.loop = asyncio.new_event_loop()
        self._started = threading.Semaphore(0)  # one each when a socket listens
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        for _ in range(2):
            assert self._started.acquire(timeout=20)
        if self._failure is not None:
            raise self._failure

    def call(self, work):
        """Run a coroutine on the application's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.feed.end)
        for server in self._servers:
            server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._started.release(2)

    async def _serve(self) -> None:
        self.registry = await Registry.open(self.layout.registry)
        store = AttributeStore(self.layout.attributes)
        sessions = Sessions()
        packages = PackageService(
            self.registry,
            PackageFiles(self.layout.packages),
            Space(self.layout, 0),
            max_bytes=UPLOAD_BYTES,
        )
        await packages.open()
        self.attributes = AttributeService(store, sessions, wall_clock_ms)
        self.accounts = await Accounts.open(
            self.registry.store,
            now_ms=lambda: wall_clock_ms() + self.ahead_ms,
            demo=self._admin.demo_accounts,
        )
        self.first_password = await self.accounts.first_accounts()
        services = Services(
            registry=self.registry,
            series=self.series,
            attributes=self.attributes,
            rpc=RpcService(sessions, self.registry, ActorsRpc(), wall_clock_ms),
            device_calls=DeviceCalls(self.registry, None, timeout_ms=60_000),
            live=self.feed,
            node=FixedNode(),
            deletes=self.series,
            upkeep=NoUpkeep(),
            writer=self.series,
            watches=Watches(),
            packages=packages,
            claims=Claims(
                self.registry, self.attributes, wall_clock_ms, by_default=True, default_ms=1
            ),
            accounts=self.accounts,
        )
        front = build_front(services, self._admin.allowed_networks())
        self._servers = [
            self._server(build_app(services), self.layout.api),
            self._server(front, self.layout.front),
        ]
        try:
            await asyncio.gather(*(server.serve() for server in self._servers))
        finally:
            store.close()
            packages.close()
            self.accounts.close()
            await self.registry.close()

    def _server(self, app, path: Path) -> _Server:
        config = uvicorn.Config(
            app, uds=str(path), ws="none", lifespan="off", log_config=None, timeout_keep_alive=90
        )
        return _Server(config, self._started)


@contextlib.contextmanager
def running_app(data_dir: Path, *, demo: bool = False, networks: str = "") -> Iterator[RunningApp]:
    app = RunningApp(data_dir, demo=demo, networks=networks)
    try:
        yield app
    finally:
        app.close()
