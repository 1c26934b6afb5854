"""Classes of retention: from the configuration and the registry; windows that grow old."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tbfast import config, limits
from tbfast.config import ConfigError, Series
from tbfast.control.registry import DeviceDraft, ProfileDraft, Registry
from tbfast.control.retention import RetentionClasses
from tests.support.storage import Storage

HOUR_MS = 3_600_000
SETTINGS = Series(retention_ms=0, retention={"meter": HOUR_MS, "door": 2 * HOUR_MS, "same": 0})


class _Clock:
    """Stands in for the time module."""

    def __init__(self) -> None:
        self.wall_ms = 1_000_000_000_000
        self.monotonic_ms = 5_000

    def time_ns(self) -> int:
        return self.wall_ms * 1_000_000

    def monotonic(self) -> float:
        return self.monotonic_ms / 1000

    def pass_ms(self, ms: int) -> None:
        self.wall_ms += ms
        self.monotonic_ms += ms


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()
    monkeypatch.setattr("tbfast.control.upkeep.time", made)
    return made


@pytest.fixture
def storage(tmp_path: Path, clock: _Clock) -> Iterator[Storage]:
    opened = Storage(
        tmp_path / "data",
        journals=1,
        settings=Series(retention_ms=16_000, retention={"short": 1_600}),
        class_of=lambda device: device - 1,
    )
    yield opened
    opened.close()


def seal(storage: Storage, ts: int, *devices: int) -> None:
    for device in devices:
        storage.write(0, device, (ts, {"a": "1"}))
    assert asyncio.run(storage.sealer.seal()) is not None


def expire(storage: Storage) -> list[tuple[int | None, int]]:
    """Class and points of the windows that are left."""
    asyncio.run(storage.sealer.upkeep.expire())
    return [(w.retention_ms, w.points) for w in storage.store.windows()]


# --- configuration ---------------------------------------------------------------------------


def test_classes_are_the_times_that_differ() -> None:
    assert SETTINGS.retention_classes() == [None, HOUR_MS, 2 * HOUR_MS]
    names = ("meter", "door", "same", "unlisted")
    assert [SETTINGS.retention_class(name) for name in names] == [1, 2, 0, 0]


def test_from_a_file_and_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "tbfast.toml"
    file.write_text('[series]\nretention_ms = 5\n[series.retention]\n"My meter" = 7\n')
    loaded = config.load(environ={"TBFAST_CONFIG": str(file)})
    assert loaded.config.series.retention == {"My meter": 7}
    loaded = config.load(environ={"TBFAST_SERIES__RETENTION": '{"a": 1, "b": 2}'})
    assert loaded.config.series.retention == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x", "TBFAST_SERIES__RETENTION"),
        ('{"a": -1}', "TBFAST_SERIES__RETENTION"),
        ('{"a": 1, "b": 2, "c": 3, "d": 4}', f"more than {limits.RETENTION_CLASSES} different"),
    ],
)
def test_what_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load(environ={"TBFAST_SERIES__RETENTION": text})


# --- registry --------------------------------------------------------------------------------


def test_devices_are_followed_through_the_registry(tmp_path: Path) -> None:
    async def follow() -> None:
        registry = await Registry.open(tmp_path / "registry")
        try:
            meter = (await registry.create_device("m1", type="meter")).device
            plain = (await registry.create_device("p1")).device
            classes = RetentionClasses(registry, SETTINGS)
            await classes.load()
            assert (classes.of(meter.number), classes.of(plain.number)) == (1, 0)
            door = (await registry.create_device("d1", type="door")).device
            await _until(lambda: classes.of(door.number) == 2)
            await registry.change_device(meter.id, DeviceDraft(name="m1", type="door"))
            await _until(lambda: classes.of(meter.number) == 2)
            await registry.change_device(meter.id, DeviceDraft(name="m1", type="default"))
            await _until(lambda: classes.of(meter.number) == 0)
            profile = await registry.profiles.by_name("door")
            assert profile is not None
            await registry.profiles.save(ProfileDraft(name="meter2"), profile.id)
            await _until(lambda: classes.of(door.number) == 0)
            await registry.profiles.save(ProfileDraft(name="door"), profile.id)
            await _until(lambda: classes.of(door.number) == 2)
            await registry.delete_device(door.id)
            await _until(lambda: classes.of(door.number) == 0)
        finally:
            await registry.close()

    asyncio.run(follow())


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


# --- age -------------------------------------------------------------------------------------


def test_windows_go_on_an_idle_node(storage: Storage, clock: _Clock) -> None:
    seal(storage, 1, 1, 2)
    assert sorted(expire(storage), key=str) == [(1_600, 1), (None, 1)]
    clock.pass_ms(100)  # the span of a window of the short class
    assert len(expire(storage)) == 2  # it has ended now
    clock.pass_ms(1_599)
    assert len(expire(storage)) == 2
    clock.pass_ms(1)
    assert expire(storage) == [(None, 1)]
    clock.pass_ms(15_998)  # the other ended when it was looked at before
    assert expire(storage) == [(None, 1)]
    clock.pass_ms(1)
    assert expire(storage) == []
    seal(storage, 2, 1)
    assert expire(storage) == [(None, 1)]


def test_a_step_of_the_clock_drops_nothing_on_an_idle_node(storage: Storage, clock: _Clock) -> None:
    for ts in range(3):
        seal(storage, ts, 1)
        clock.pass_ms(1_000)
    clock.wall_ms += 10 * 365 * 24 * HOUR_MS
    for _ in range(4):
        clock.pass_ms(1_000)
        assert len(expire(storage)) == 3
    clock.wall_ms -= 10 * 365 * 24 * HOUR_MS
    assert len(expire(storage)) == 3
    clock.pass_ms(16_000)
    assert expire(storage) == []


def test_a_clock_that_was_set_forward_does_not_end_each_window(
    storage: Storage, clock: _Clock
) -> None:
    """A machine without a battery starts in 1970: ages lag behind its clock for decades."""
    seal(storage, 1, 1)
    clock.wall_ms += 50 * 365 * 24 * HOUR_MS
    for ts in range(2, 7):
        assert expire(storage)
        clock.pass_ms(100)
        seal(storage, ts, 1)
    assert expire(storage) == [(None, 1), (None, 5)]


def test_a_window_that_ended_in_1970_goes_when_its_time_has_come(
    storage: Storage, clock: _Clock
) -> None:
    seal(storage, 1, 1)
    right_ms = clock.wall_ms
    clock.wall_ms = 1_000
    assert expire(storage) == [(None, 1)]
    clock.wall_ms = right_ms
    clock.pass_ms(15_000)
    assert expire(storage) == [(None, 1)]
    clock.pass_ms(2_000)
    assert expire(storage) == []


def test_the_task_of_a_node_expires_and_joins_by_itself(tmp_path: Path) -> None:
    settings = Series(retention_ms=4_000, join_runs=2, seal_interval_ms=1_000)
    storage = Storage(tmp_path / "data", journals=1, settings=settings)

    async def live() -> None:
        running = asyncio.ensure_future(storage.sealer.run())
        try:
            for ts in range(4):
                storage.write(0, 1, (ts, {"a": "1"}))
                await storage.sealer.seal()
            await _until(lambda: any(s.level for w in storage.store.windows() for s in w.segments))
            await _until(lambda: not storage.store.windows())
        finally:
            await storage.sealer.finish()
            await running

    try:
        asyncio.run(live())
    finally:
        storage.close()
