"""Both ends of the link against each other's messages: sessions, credentials, changes."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from tbfast._ext.metrics import Slot
from tbfast.control.links import LinkServer
from tbfast.control.registry import Registry
from tbfast.control.tail import TailService
from tbfast.link import messages as msg
from tbfast.model.auth import Presented, StoredCredentials
from tbfast.store.journal import Position
from tbfast.worker.directory import Directory


class Channel:
    """Keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[msg.Message] = []

    def send(self, message: msg.Message) -> None:
        self.sent.append(message)

    def of(self, kind: type) -> list[msg.Message]:
        return [m for m in self.sent if isinstance(m, kind)]


class Controller:
    """A link server with a registry, and one worker's channel."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.links = LinkServer(registry, TailService(Slot()))
        registry.subscribe(self.links._changed)

    def hello(self, worker: int, *sessions: msg.OpenSession, revision: int = 0) -> Channel:
        channel = Channel()
        self.links.channel_opened(channel)
        self.links.message(
            channel,
            msg.Hello(msg.LINK_VERSION, worker, worker, 1, 1, revision, list(sessions)),
        )
        return channel


def with_controller(path: Path, work: Callable[[Controller], Awaitable[None]]) -> None:
    async def run() -> None:
        registry = await Registry.open(path / "registry")
        try:
            async with asyncio.timeout(20):
                await work(Controller(registry))
        finally:
            await registry.close()

    asyncio.run(run())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


BASIC = '{"userName":"pump","password":"%s"}'


def test_a_new_password_under_the_same_id_reaches_the_workers(tmp_path):
    async def work(controller: Controller) -> None:
        registry = controller.registry
        device = (await registry.create_device("pump")).device
        await registry.update_credentials(device.id, "", type="MQTT_BASIC", value=BASIC % "old")
        channel = controller.hello(0)
        await until(lambda: channel.of(msg.Welcome))
        await registry.update_credentials(device.id, "", type="MQTT_BASIC", value=BASIC % "new")
        await until(lambda: channel.of(msg.Changed))
        change = channel.of(msg.Changed)[-1]
        assert change.credentials_ids == ["pump"]
        assert len(change.closed_devices) == 1

    with_controller(tmp_path, work)


def test_an_answer_never_overtakes_the_change_that_made_it_stale(tmp_path):
    async def work(controller: Controller) -> None:
        registry = controller.registry
        await registry.create_device("b", "second")
        channel = controller.hello(0)
        await until(lambda: channel.of(msg.Welcome))
        inside, go = asyncio.Event(), asyncio.Event()
        lookup = registry.lookup_credentials

        async def slow(credentials_id: str):
            found = await lookup(credentials_id)
            if credentials_id == "first" and not go.is_set():
                inside.set()
                await go.wait()
            return found

        registry.lookup_credentials = slow
        controller.links.message(channel, msg.Lookup(1, ["first", "second"]))
        await inside.wait()
        await registry.create_device("a", "first")
        await until(lambda: channel.of(msg.Changed))
        go.set()
        await until(lambda: channel.of(msg.Found))
        (found,) = channel.of(msg.Found)
        assert found.credentials[0] is not None

    with_controller(tmp_path, work)


def test_a_session_that_closes_right_after_hello_is_forgotten(tmp_path):
    async def work(controller: Controller) -> None:
        first = controller.hello(0, msg.OpenSession(5, 1, 1, 1000), revision=1)
        controller.links.message(first, msg.SessionClosed(5, 1, 1))
        await until(lambda: first.of(msg.Welcome))
        second = controller.hello(1, msg.OpenSession(5, 9, 1, 500), revision=1)
        await until(lambda: second.of(msg.Welcome))
        assert second.of(msg.TakenOver) == []

    with_controller(tmp_path, work)


def test_the_later_connect_wins_across_workers(tmp_path):
    async def work(controller: Controller) -> None:
        first = controller.hello(0, msg.OpenSession(5, 1, 1, 1000))
        second = controller.hello(1)
        controller.links.message(second, msg.SessionOpened(msg.OpenSession(5, 2, 7, 2000)))
        assert first.of(msg.TakenOver) == [msg.TakenOver(5, 1, 1)]
        controller.links.message(first, msg.SessionClosed(5, 1, 1))
        controller.links.message(first, msg.SessionOpened(msg.OpenSession(5, 3, 1, 1500)))
        assert first.of(msg.TakenOver)[-1] == msg.TakenOver(5, 3, 1)

    with_controller(tmp_path, work)


class _Journal:
    journal_id = 0
    epoch = 1
    durable = Position(1, 0)

    def definitions(self):
        return []


class _Feed:
    def start(self, channel, after, credit_bytes):
        """Nothing to send."""

    def stop(self):
        """Nothing was sent."""


class _Sessions:
    def __init__(self) -> None:
        self.credentials: list[str] = []
        self.checked: list[tuple[str, StoredCredentials | None]] = []

    def open_sessions(self):
        return []

    def open_credentials(self):
        return self.credentials

    def rechecked(self, credentials_id, found):
        self.checked.append((credentials_id, found))


def with_directory(work: Callable[[Directory, _Sessions], None]) -> None:
    async def run() -> None:
        directory = Directory(asyncio.get_running_loop(), 0, _Journal(), _Feed())
        directory.sessions = _Sessions()
        work(directory, directory.sessions)

    asyncio.run(run())


def welcome(revision: int, *, flush: bool = False) -> msg.Welcome:
    return msg.Welcome(0, 0, 1 << 20, revision, flush)


def test_sessions_between_hello_and_welcome_are_reported():
    def work(directory: Directory, sessions: _Sessions) -> None:
        channel = Channel()
        directory.channel_opened(channel)
        directory.session_opened(5, 1, 1, 1000)
        directory.session_closed(5, 1, 1)
        assert channel.of(msg.SessionOpened) == [msg.SessionOpened(msg.OpenSession(5, 1, 1, 1000))]
        assert channel.of(msg.SessionClosed) == [msg.SessionClosed(5, 1, 1)]

    with_directory(work)


def test_rechecks_survive_a_link_that_goes_down_before_they_are_answered():
    def work(directory: Directory, sessions: _Sessions) -> None:
        sessions.credentials = ["token"]
        first = Channel()
        directory.channel_opened(first)
        directory.message(first, welcome(7, flush=True))
        assert [m.ids for m in first.of(msg.Lookup)] == [["token"]]
        directory.channel_closed(first)
        second = Channel()
        directory.channel_opened(second)
        directory.message(second, welcome(7))
        (lookup,) = second.of(msg.Lookup)
        directory.message(second, msg.Found(lookup.request, [None]))
        assert sessions.checked == [("token", None)]

    with_directory(work)


def test_the_revision_never_goes_back():
    """Changes of the log follow a Welcome whose revision may already be ahead of them."""

    def work(directory: Directory, sessions: _Sessions) -> None:
        channel = Channel()
        directory.channel_opened(channel)
        directory.message(channel, welcome(9))
        directory.message(channel, msg.Changed(8, [], [], ""))
        directory.channel_closed(channel)
        again = Channel()
        directory.channel_opened(again)
        assert again.of(msg.Hello)[0].revision == 9

    with_directory(work)


def test_lookups_that_nobody_answers_are_bounded(monkeypatch):
    monkeypatch.setattr("tbfast.limits.UNAUTHENTICATED_CONNECTIONS", 3)

    def work(directory: Directory, sessions: _Sessions) -> None:
        refused = []
        for number in range(5):
            client = Presented("", f"token{number}", None)
            directory.find(client, lambda found: None, lambda n=number: refused.append(n))
        assert refused == [3, 4]

    with_directory(work)
