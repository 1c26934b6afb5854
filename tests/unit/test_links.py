"""Both ends of the link against each other's messages: sessions, credentials, changes."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from tbfast._ext.metrics import Slot
from tbfast.control.links import LinkServer
from tbfast.control.merge import Merge
from tbfast.control.registry import ProfileDraft, Registry
from tbfast.control.sessions import Sessions
from tbfast.control.tail import TailService
from tbfast.link import messages as msg
from tbfast.model.auth import Presented, StoredCredentials
from tbfast.model.operations import (
    AnswerRpc,
    AttributesUpdated,
    AwaitAttributes,
    CallServer,
    Claim,
    Done,
    Operation,
    ReadAttributes,
    Refusal,
    Reply,
    RpcRequest,
)
from tbfast.model.transport import DEFAULT_MQTT, MqttProfile
from tbfast.store.journal import Position
from tbfast.worker.directory import Directory
from tbfast.worker.operations import Operations as WorkerOperations
from tests.support.packages import no_packages


class Channel:
    """Keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[msg.Message] = []

    def send(self, message: msg.Message) -> None:
        self.sent.append(message)

    def of(self, kind: type) -> list[msg.Message]:
        return [m for m in self.sent if isinstance(m, kind)]


class Operations:
    """Answers every operation once `go` is set; counts those that were given up."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun: list[object] = []
        self.cancelled = 0

    async def carry_out(self, device: int, operation: object) -> Done:
        self.begun.append((device, operation))
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return Done()


class Controller:
    """A link server with a registry, and one worker's channel."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.operations = Operations()
        self.sessions = Sessions()
        self.links = LinkServer(registry, TailService(Slot()), self.sessions, self.operations)
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


def mqtt(topic: str, name: str = "meter") -> ProfileDraft:
    data = {"transportConfiguration": {"type": "MQTT", "deviceTelemetryTopic": topic}}
    return ProfileDraft(name=name, transport_type="MQTT", data=data)


def test_a_profile_is_told_before_the_first_credentials_that_name_it(tmp_path):
    async def work(controller: Controller) -> None:
        registry = controller.registry
        profile = await registry.profiles.save(mqtt("/t"))
        for name in ("a", "b"):
            await registry.create_device(name, name, type="meter")
        await registry.create_device("c", "c")
        channel = controller.hello(0)
        for request, token in enumerate(("c", "a", "b", "nobody")):
            controller.links.message(channel, msg.Lookup(request, [token]))
        await until(lambda: len(channel.of(msg.Found)) == 4)
        (told,) = channel.of(msg.Profile)
        assert told == msg.Profile(profile.id, registry.profiles.mqtt(profile.id))
        assert told.mqtt.telemetry_topic == "/t"
        first = next(m for m in channel.of(msg.Found) if m.request == 1)
        assert first.credentials[0].profile == profile.id
        assert channel.sent.index(told) < channel.sent.index(first)

    with_controller(tmp_path, work)


def test_a_changed_profile_is_told_before_its_revision(tmp_path):
    async def work(controller: Controller) -> None:
        registry = controller.registry
        profile = await registry.profiles.save(mqtt("/t"))
        channel = controller.hello(0, revision=registry.revision)
        await until(lambda: channel.of(msg.Welcome))
        seen = registry.revision
        await registry.profiles.save(mqtt("/u"), profile.id)
        await registry.profiles.delete(profile.id)
        await until(lambda: len(channel.of(msg.Changed)) == 2)
        told = [m for m in channel.sent if isinstance(m, msg.Profile | msg.Changed)]
        assert [type(m).__name__ for m in told] == ["Profile", "Changed"] * 2
        assert told[0].mqtt is None or told[0].mqtt.telemetry_topic == "/u"
        assert told[2] == msg.Profile(profile.id, None)
        # A worker that was away meanwhile.
        other = controller.hello(1, revision=seen)
        await until(lambda: len(other.of(msg.Changed)) == 2)
        assert other.of(msg.Profile)[-1] == msg.Profile(profile.id, None)

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
        self.open: list[tuple[int, int, int, int, bool, bool]] = []
        self.checked: list[tuple[str, StoredCredentials | None]] = []
        self.edited: list[tuple[str, MqttProfile]] = []

    def profile_changed(self, profile, mqtt):
        self.edited.append((profile, mqtt))

    def open_sessions(self):
        return self.open

    def open_credentials(self):
        return self.credentials

    def rechecked(self, credentials_id, found):
        self.checked.append((credentials_id, found))


def with_directory(work: Callable[[Directory, _Sessions], None]) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        operations = WorkerOperations(loop, lambda: Position(1, 7), no_packages(loop))
        directory = Directory(loop, 0, _Journal(), _Feed(), operations)
        directory.sessions = _Sessions()
        work(directory, directory.sessions)

    asyncio.run(run())


def welcome(revision: int, *, flush: bool = False) -> msg.Welcome:
    return msg.Welcome(0, 0, 1 << 20, revision, flush)


SETTINGS = MqttProfile(telemetry_topic="/t")
KNOWN = StoredCredentials("T", "ACCESS_TOKEN", 5, "pump", profile="p")


def test_sessions_and_cached_credentials_share_the_settings_of_their_profile():
    def work(directory: Directory, sessions: _Sessions) -> None:
        channel, found = Channel(), []
        directory.channel_opened(channel)
        directory.message(channel, welcome(7))
        directory.find_token("T", found.append, found.clear)
        directory.find_token("U", found.append, found.clear)
        directory.message(channel, msg.Profile("p", SETTINGS))
        for lookup in channel.of(msg.Lookup):
            answer = msgspec.structs.replace(KNOWN, credentials_id=lookup.ids[0])
            directory.message(channel, msg.Found(lookup.request, [answer]))
        assert [c.mqtt for c in found] == [SETTINGS] * 2
        assert found[0].mqtt is found[1].mqtt
        edited = MqttProfile(telemetry_topic="/u")
        directory.message(channel, msg.Profile("p", edited))
        directory.message(channel, msg.Profile("q", SETTINGS))
        assert directory.token("T").mqtt is edited
        directory.message(channel, msg.Profile("p", MqttProfile()))
        assert directory.token("T").mqtt is DEFAULT_MQTT
        assert sessions.edited == [
            ("p", SETTINGS), ("p", edited), ("q", SETTINGS), ("p", DEFAULT_MQTT),
        ]  # fmt: skip

    with_directory(work)


def test_a_worker_that_starts_afresh_forgets_settings():
    def work(directory: Directory, sessions: _Sessions) -> None:
        sessions.credentials = ["T"]
        channel = Channel()
        directory.channel_opened(channel)
        directory.message(channel, msg.Profile("p", SETTINGS))
        directory.message(channel, welcome(7, flush=True))
        (lookup,) = channel.of(msg.Lookup)
        directory.message(channel, msg.Found(lookup.request, [KNOWN]))
        assert sessions.checked == [("T", KNOWN)]

    with_directory(work)


def test_sessions_between_hello_and_welcome_are_reported():
    def work(directory: Directory, sessions: _Sessions) -> None:
        channel = Channel()
        directory.channel_opened(channel)
        directory.session_opened(5, 1, 1, 1000)
        directory.session_closed(5, 1, 1)
        assert channel.of(msg.SessionOpened) == [msg.SessionOpened(msg.OpenSession(5, 1, 1, 1000))]
        assert channel.of(msg.SessionClosed) == [msg.SessionClosed(5, 1, 1)]

    with_directory(work)


def test_what_sessions_do_between_hello_and_welcome_is_told():
    def work(directory: Directory, operations: WorkerOperations) -> None:
        channel = Channel()
        directory.channel_opened(channel)
        operations.listen(5, 1, 1, True, False, False)
        operations.delivered(7, "acknowledged")
        assert channel.of(msg.Listen) == [msg.Listen(5, 1, 1, True, False, False)]
        assert channel.of(msg.Delivered) == [msg.Delivered(7, "acknowledged")]

    with_directory(lambda directory, _: work(directory, directory._operations))


def test_who_subscribed_while_the_link_was_down_gets_open_calls_once():
    def work(directory: Directory, sessions: _Sessions) -> None:
        first, second = Channel(), Channel()
        sessions.open = [(5, 1, 1, 1000, False, True), (6, 2, 4, 1000, False, True)]
        directory._operations.listen(5, 1, 1, False, True, True)
        directory._operations.listen(6, 2, 3, False, True, True)  # a session before this one
        directory.channel_opened(first)
        directory.message(first, welcome(7))
        (hello,) = first.of(msg.Hello)
        assert [(s.device, s.again) for s in hello.sessions] == [(5, True), (6, False)]
        assert not first.of(msg.Listen)
        directory.channel_closed(first)
        directory.channel_opened(second)
        (hello,) = second.of(msg.Hello)
        assert not any(s.again for s in hello.sessions)

    with_directory(work)


def test_a_hello_that_says_again_sends_delivered_calls_again(tmp_path):
    async def work(controller: Controller) -> None:
        heard: list[tuple[int, bool]] = []
        controller.sessions.on_listens = lambda device, again: heard.append((device, again))
        controller.hello(0, msg.OpenSession(5, 1, 2, 10, False, True, again=True))
        controller.hello(1, msg.OpenSession(6, 1, 2, 10, False, True))
        assert heard == [(5, True), (6, False)]

    with_controller(tmp_path, work)


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


# --- operations ------------------------------------------------------------------------------


class ShortMerge(Merge):
    """Has no memory for the first block that it would give on."""

    releases = 0

    def release(self) -> None:
        self.releases += 1
        if self.releases == 1:
            raise MemoryError("no memory for the tail")
        super().release()


def test_a_block_that_memory_was_lacking_for_is_tried_again(tmp_path):
    async def work(controller: Controller) -> None:
        merge = ShortMerge(lambda block: None)
        links = LinkServer(
            controller.registry,
            TailService(Slot()),
            controller.sessions,
            controller.operations,
            merge=merge,
        )
        await links.listen(tmp_path / "link")
        await until(lambda: merge.releases >= 3)
        await links.close()

    with_controller(tmp_path, work)


def test_an_operation_is_answered_and_a_dropped_one_given_up(tmp_path):
    async def work(controller: Controller) -> None:
        channel = controller.hello(0)
        controller.links.message(channel, msg.Ask(1, 5, AnswerRpc(0, b"x")))
        controller.links.message(channel, msg.Ask(2, 5, AwaitAttributes()))
        await until(lambda: len(controller.operations.begun) == 2)
        controller.links.message(channel, msg.Drop(2))
        await until(lambda: controller.operations.cancelled)
        controller.operations.go.set()
        await until(lambda: channel.of(msg.Answer))
        assert channel.of(msg.Answer) == [msg.Answer(1, Done())]

    with_controller(tmp_path, work)


def test_a_lost_link_gives_its_operations_up(tmp_path):
    async def work(controller: Controller) -> None:
        channel = controller.hello(0)
        controller.links.message(channel, msg.Ask(1, 5, AwaitAttributes()))
        await until(lambda: controller.operations.begun)
        controller.links.channel_closed(channel)
        await until(lambda: controller.operations.cancelled)

    with_controller(tmp_path, work)


def test_only_a_session_that_listens_is_told(tmp_path):
    async def work(controller: Controller) -> None:
        channel = controller.hello(0, msg.OpenSession(5, 1, 2, 10))
        notice = AttributesUpdated(b'{"a":1}')
        outcomes: list[str] = []
        assert not controller.sessions.tell(5, notice, outcomes.append)
        controller.links.message(channel, msg.Listen(5, 1, 2, True, False))
        assert controller.sessions.tell(5, notice, outcomes.append)
        assert not controller.sessions.tell(5, RpcRequest(0, "m"))
        (told,) = channel.of(msg.Notify)
        assert (told.device, told.slot, told.generation, told.notice) == (5, 1, 2, notice)
        controller.links.message(channel, msg.Delivered(told.push, "sent"))
        controller.links.message(channel, msg.Delivered(told.push, "acknowledged"))
        controller.links.message(channel, msg.Delivered(told.push, "timeout"))  # too late
        assert outcomes == ["sent", "acknowledged"]

    with_controller(tmp_path, work)


def test_a_push_to_a_worker_that_goes_away_is_dropped(tmp_path):
    async def work(controller: Controller) -> None:
        channel = controller.hello(0, msg.OpenSession(5, 1, 2, 10, True, True))
        outcomes: list[str] = []
        controller.sessions.tell(5, RpcRequest(0, "m"), outcomes.append)
        controller.links.channel_closed(channel)
        assert outcomes == ["dropped"]
        assert not controller.sessions.connected(5)

    with_controller(tmp_path, work)


def test_a_subscription_of_an_older_session_is_ignored(tmp_path):
    async def work(controller: Controller) -> None:
        channel = controller.hello(0, msg.OpenSession(5, 1, 2, 10))
        controller.links.message(channel, msg.Listen(5, 1, 1, True, True))
        assert not controller.sessions.tell(5, RpcRequest(0, "m"))

    with_controller(tmp_path, work)


def with_operations(work: Callable[[WorkerOperations], None]) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        work(WorkerOperations(loop, lambda: Position(1, 7), no_packages(loop)))

    asyncio.run(run())


def test_a_device_reads_what_it_wrote():
    def work(operations: WorkerOperations) -> None:
        channel = Channel()
        operations.linked(channel)
        operations.ask(5, ReadAttributes(), lambda result: None)
        operations.ask(5, AnswerRpc(1, b""), lambda result: None)
        assert [(a.epoch, a.seq) for a in channel.of(msg.Ask)] == [(1, 7), (0, 0)]

    with_operations(work)


def test_what_does_no_harm_is_asked_again_when_the_link_is_back():
    def work(operations: WorkerOperations) -> None:
        first, second = Channel(), Channel()
        results: list[object] = []
        operations.linked(first)
        operations.ask(5, ReadAttributes(), results.append)
        operations.ask(5, CallServer("reboot"), results.append)
        operations.unlinked()
        assert [type(r) for r in results] == [Refusal]
        operations.linked(second)
        (asked,) = second.of(msg.Ask)
        assert isinstance(asked.operation, ReadAttributes)
        operations.answered(msg.Answer(asked.request, Reply(b"1")))
        assert results[1:] == [Reply(b"1")]

    with_operations(work)


def test_what_waits_too_long_for_the_link_is_refused():
    def work(operations: WorkerOperations) -> None:
        results: list[object] = []
        operations.ask(5, ReadAttributes(), results.append, timeout_s=0)
        operations.expire()
        assert isinstance(results[0], Refusal)
        assert results[0].reason == "unavailable"
        operations.expire()
        assert len(results) == 1

    with_operations(work)


@pytest.mark.parametrize("said", [AnswerRpc(1, b"{}"), Claim("secret")])
def test_what_a_device_said_is_carried_out_though_it_has_left(said: Operation):
    def work(operations: WorkerOperations) -> None:
        channel = Channel()
        results: list[object] = []
        heard = operations.ask(5, said, results.append)
        operations.drop(heard)
        operations.linked(channel)  # only now
        assert [ask.operation for ask in channel.of(msg.Ask)] == [said]
        assert not channel.of(msg.Drop)
        operations.answered(msg.Answer(heard, Done()))
        operations.ask(5, said, results.append, timeout_s=0)
        operations.drop(heard + 1)
        operations.expire()  # it is not waited for longer than anything else
        assert channel.of(msg.Drop) == [msg.Drop(heard + 1)]
        assert not results

    with_operations(work)


def test_nobody_hears_the_answer_to_what_was_dropped():
    def work(operations: WorkerOperations) -> None:
        channel = Channel()
        operations.linked(channel)
        results: list[object] = []
        request = operations.ask(5, ReadAttributes(), results.append)
        operations.drop(request)
        assert channel.of(msg.Drop) == [msg.Drop(request)]
        operations.answered(msg.Answer(request, Done()))
        assert not results

    with_operations(work)
