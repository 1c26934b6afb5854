"""The store of a stopped server: the only command-line module that opens it."""

import asyncio
import contextlib
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tbfast.cli.exits import Unreachable
from tbfast.cli.target import DeviceView, ProfileDraft, ProfileView
from tbfast.control import registry as control
from tbfast.control.registry import DeviceQuery, Registry
from tbfast.control.rules import InvalidEntity
from tbfast.errors import NotFound, StoreBusy
from tbfast.model.device import Device, DeviceRecord
from tbfast.model.profile import DeviceProfile
from tbfast.model.ranges import RangeQuery
from tbfast.store.layout import Layout

_PAGE_SIZE = 1_000

T = TypeVar("T")


def open_store(data_dir: Path) -> "Offline":
    """Open the registry; raises Unreachable when a process has it that does not answer."""
    layout = Layout(data_dir)
    layout.prepare()
    with contextlib.ExitStack() as undo:
        try:
            lock = layout.acquire()
            undo.callback(os.close, lock)
            runner = undo.enter_context(asyncio.Runner())
            registry = runner.run(Registry.open(layout.registry))
        except StoreBusy as error:
            raise Unreachable(
                f"{data_dir} is in use by a process that does not answer on its socket: a server "
                "that starts or hangs, or another tbfast command; try again or look at its log"
            ) from error
        return Offline(data_dir, runner, registry, undo.pop_all())


class Offline:
    """A `Target` without a server."""

    def __init__(
        self,
        data_dir: Path,
        runner: asyncio.Runner,
        registry: Registry,
        undo: contextlib.ExitStack,
    ) -> None:
        self._data_dir = data_dir
        self._runner = runner
        self._registry = registry
        self._undo = undo

    def create(
        self, name: str, token: str | None, label: str | None, type: str | None
    ) -> DeviceView:
        """Straight into the registry; returns when it is on disk."""
        return _view(self._run(self._registry.create_device(name, token, label=label, type=type)))

    def find(self, text: str) -> DeviceView:
        """By name, then by id."""
        return _bare(self._run(self._found(text)))

    def with_token(self, device: DeviceView) -> DeviceView:
        """The same with its token."""
        return _view(self._run(self._registry.record(device.id)))

    def devices(self, text_search: str) -> Iterator[DeviceView]:
        """All of them, by name."""
        page = 0
        while True:
            query = DeviceQuery(
                page=page, page_size=_PAGE_SIZE, text_search=text_search, sort_property="name"
            )
            found = self._run(self._registry.page(query))
            for device_id in found.ids:
                yield _bare(self._run(self._registry.device(device_id)))
            page += 1
            if page * _PAGE_SIZE >= found.total:
                return

    def remove(self, device: DeviceView) -> None:
        """From the registry; rows that mention its number are dropped later."""
        self._run(self._registry.delete_device(device.id))

    def profiles(self) -> list[ProfileView]:
        """All of them, by name."""
        found = self._run(self._registry.profiles.all())
        return [_profile(p) for p in sorted(found, key=lambda p: p.name.casefold())]

    def create_profile(self, draft: ProfileDraft) -> ProfileView:
        """Straight into the registry; returns when it is on disk."""
        fields = msgspec.structs.asdict(draft)
        try:
            checked = msgspec.convert(fields, control.ProfileDraft)
        except msgspec.ValidationError as error:
            raise InvalidEntity(str(error)) from error
        return _profile(self._run(self._registry.profiles.save(checked)))

    def remove_profile(self, profile: ProfileView) -> None:
        """From the registry, if no device has it."""
        self._run(self._registry.delete_profile(profile.id))

    def history(self, device: DeviceView, query: RangeQuery) -> bytes:
        """From journals and sealed series."""
        from tbfast.store.series_reader import open_offline

        number = self._run(self._registry.device(device.id)).number
        reader = open_offline(self._data_dir)
        try:
            return self._run(reader.range(number, query))
        finally:
            self._run(reader.close())

    def close(self) -> None:
        """Release the store, then the data directory's lock."""
        with self._undo:
            self._run(self._registry.close())

    async def _found(self, text: str) -> Device:
        device = await self._registry.device_by_name(text)
        if device is not None:
            return device
        try:
            return await self._registry.device(text.lower())
        except NotFound:
            raise NotFound(f"there is no device with the name or id {text!r}") from None

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)


def _bare(device: Device) -> DeviceView:
    return DeviceView(device.id, device.name, device.type, device.label, device.created_ms)


def _view(record: DeviceRecord) -> DeviceView:
    secret = record.credentials
    token = secret.credentials_id if secret.type == "ACCESS_TOKEN" else None
    return msgspec.structs.replace(_bare(record.device), token=token)


def _profile(profile: DeviceProfile) -> ProfileView:
    return ProfileView(
        id=profile.id,
        name=profile.name,
        transport_type=profile.transport_type,
        provision_type=profile.provision_type,
        default=profile.default,
        created_time=profile.created_ms,
        description=profile.description,
        provision_device_key=profile.provision_key,
        profile_data=profile.data,
    )
