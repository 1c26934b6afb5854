"""Attributes: what journals bring, what operators save and delete, and a store that failed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tbfast.control.attributes import AttributeService
from tbfast.control.sessions import Sessions
from tbfast.errors import StoreError
from tbfast.model.device import Change
from tbfast.model.operations import Attributes, ReadAttributes
from tbfast.store.attributes import Attribute, AttributeStore

JOURNAL = 3


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AttributeStore]:
    opened = AttributeStore(tmp_path / "attributes")
    yield opened
    opened.close()


@pytest.fixture
def service(store: AttributeStore) -> AttributeService:
    return AttributeService(store, Sessions(), lambda: 5)


def arrive(service: AttributeService, seq: int, *rows: tuple[int, str, bytes]) -> None:
    service.applied(JOURNAL, (1, seq), [(device, name, seq, text) for device, name, text in rows])


def client(store: AttributeStore, device: int = 7) -> dict[str, bytes]:
    return {a.name: a.text for a in store.read(device, "CLIENT_SCOPE", None)}


def test_a_replay_changes_nothing_twice(store: AttributeStore, service: AttributeService) -> None:
    arrive(service, 1, (7, "a", b"1"), (7, "b", b'"x"'))
    arrive(service, 2, (7, "a", b"2"))
    asyncio.run(service.delete(7, "CLIENT_SCOPE", ("b",)))
    arrive(service, 1, (7, "a", b"1"), (7, "b", b'"x"'))
    arrive(service, 2, (7, "a", b"2"))
    assert client(store) == {"a": b"2"}
    assert store.cursor(JOURNAL) == (1, 2)
    arrive(service, 3, (7, "b", b"3"))
    assert client(store) == {"a": b"2", "b": b"3"}


def test_they_are_there_after_reopening(tmp_path: Path) -> None:
    store = AttributeStore(tmp_path / "a")
    service = AttributeService(store, Sessions(), lambda: 5)
    arrive(service, 1, (7, "a", b"1"))
    asyncio.run(service.settle())
    asyncio.run(service.save(7, "SHARED_SCOPE", {"s": b"[1]"}))
    store.close()
    store = AttributeStore(tmp_path / "a")
    try:
        assert client(store) == {"a": b"1"}
        assert store.read(7, "SHARED_SCOPE", ["s", "s", "no"]) == [Attribute("s", 5, b"[1]")]
        assert store.cursor(JOURNAL) == (1, 1)
    finally:
        store.close()


def test_devices_and_scopes_do_not_mix(store: AttributeStore, service: AttributeService) -> None:
    arrive(service, 1, (7, "k", b"1"), (8, "k", b"2"))
    asyncio.run(service.save(7, "SERVER_SCOPE", {"k": b"3"}))
    asyncio.run(service.save(7, "SHARED_SCOPE", {"k": b"4"}))
    assert client(store, 8) == {"k": b"2"}
    assert service.for_device(7, ReadAttributes()) == Attributes(b'{"k":1}', b'{"k":4}', (1,), (5,))
    assert service.for_device(7, ReadAttributes(("no",), None)) == Attributes()
    found = asyncio.run(service.read(7, ("SERVER_SCOPE",), None))
    assert found == [Attribute("k", 5, b"3")]


def test_a_removed_device_leaves_none(store: AttributeStore, service: AttributeService) -> None:
    arrive(service, 1, (7, "k", b"1"), (8, "k", b"2"))
    asyncio.run(service.save(7, "SERVER_SCOPE", {"k": b"3"}))
    service.registry_changed(Change(revision=1, kind="device", op="deleted", id="x", number=7))
    assert client(store) == {}
    assert store.read(7, "SERVER_SCOPE", None) == []
    assert client(store, 8) == {"k": b"2"}


def test_listeners_hear_of_every_source(service: AttributeService) -> None:
    heard: list[tuple[int, str, list[str], list[str]]] = []
    stop = service.subscribe(
        lambda device, scope, saved, deleted: heard.append(
            (device, scope, [a.name for a in saved], list(deleted))
        )
    )
    arrive(service, 1, (7, "a", b"1"), (8, "b", b"1"), (7, "c", b"1"))
    asyncio.run(service.save(7, "SHARED_SCOPE", {"s": b"1"}))
    asyncio.run(service.delete(7, "SHARED_SCOPE", ("s", "t")))
    stop()
    asyncio.run(service.save(7, "SHARED_SCOPE", {"s": b"1"}))
    assert heard == [
        (7, "CLIENT_SCOPE", ["a", "c"], []),
        (8, "CLIENT_SCOPE", ["b"], []),
        (7, "SHARED_SCOPE", ["s"], []),
        (7, "SHARED_SCOPE", [], ["s", "t"]),
    ]


def test_a_store_that_failed_promises_nothing(tmp_path: Path) -> None:
    store = AttributeStore(tmp_path / "a")
    service = AttributeService(store, Sessions(), lambda: 5)
    store._db.close()
    with pytest.raises(StoreError):
        asyncio.run(service.save(7, "SHARED_SCOPE", {"s": b"1"}))
    assert store.failed is not None
    arrive(service, 1, (7, "a", b"1"))  # kept: no run may be recorded over it
    with pytest.raises(StoreError):
        asyncio.run(service.settle())
