"""The store of a stopped server: the only command-line module that opens it."""

import asyncio
import contextlib
import os
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from tbfast import __version__
from tbfast.cli.devices import DeviceChanges, DeviceView
from tbfast.cli.exits import Unreachable
from tbfast.cli.target import ProfileDraft, ProfileView
from tbfast.control import registry as control
from tbfast.control.credentials import CredentialsDraft
from tbfast.control.registry import DeviceDraft, DeviceQuery, Registry
from tbfast.control.rules import InvalidEntity
from tbfast.errors import LocalError, NotFound, StoreBusy, StoreError
from tbfast.model.device import Device, DeviceRecord
from tbfast.model.profile import DeviceProfile
from tbfast.model.ranges import RangeQuery
from tbfast.store import backup as backups
from tbfast.store import restore as restores
from tbfast.store.known import check_stores
from tbfast.store.layout import Layout

if TYPE_CHECKING:
    from tbfast.store.doctor import Finding
    from tbfast.store.recover import Recovered
    from tbfast.store.series_reader import OfflineSeries

_PAGE_SIZE = 1_000

T = TypeVar("T")


def open_store(data_dir: Path, *, create: bool = False) -> "Offline":
    """Open the registry.

    Raises Unreachable when a process has it that does not answer, LocalError when a store that was
    there is missing: opening would put an empty one in its place.  NotFound when the directory is
    none of a server, unless it is to become one (`create`).
    """
    layout = Layout(data_dir)
    if create:
        layout.create()
    else:
        _check_begun(layout)
    _check_owner(layout)
    with contextlib.ExitStack() as undo:
        try:
            lock = layout.acquire()
            undo.callback(os.close, lock)
            if not create:
                _check_holds_data(layout)
            layout.prepare()
            check_stores(layout)
            runner = undo.enter_context(asyncio.Runner())
            registry = runner.run(Registry.open(layout.registry))
        except StoreBusy as error:
            raise Unreachable(
                f"{data_dir} is in use by a process that does not answer on its socket: a server "
                "that starts or hangs, or another tbfast command; try again or look at its log"
            ) from error
        return Offline(data_dir, runner, registry, undo.pop_all())


def _check_begun(layout: Layout) -> None:
    """NotFound for a directory that nothing of tbfast has touched; it is left as it is."""
    if not layout.root.is_dir():
        raise NotFound(
            f"there is no data directory {layout.root}; name the server's with --data-dir"
        )
    if not os.access(layout.root, os.R_OK | os.W_OK | os.X_OK):
        raise LocalError(
            f"no permission for the data directory {layout.root}; run as the user of the server, "
            "or fix its permissions"
        )
    if not layout.lock.exists():  # else a server may be at its first start
        _check_holds_data(layout)


def _check_holds_data(layout: Layout) -> None:
    """NotFound: a typo, or a disk that is not mounted, must not pass for a node without data."""
    if not layout.holds_data():
        raise NotFound(
            f"{layout.root} is no data directory of tbfast: no store is in it; name the server's "
            f"with --data-dir, and see that its disk is mounted"
        )


def _check_owner(layout: Layout) -> None:
    """LocalError: files of this user, root say, would keep the server from starting."""
    store = layout.foreign()
    if store is not None:
        uid = store.stat().st_uid
        raise LocalError(
            f"{store} belongs to user {uid}, this is user {os.geteuid()}: run as the user of the "
            f"server (sudo -u '#{uid}'), or make it yours: chown -R {os.geteuid()} {layout.root}"
        )


@contextlib.contextmanager
def locked(data_dir: Path, *, looking: bool = False) -> Iterator[Layout]:
    """A data directory for this process alone; Unreachable when another has it, NotFound.

    looking: also one whose stores are another user's.
    """
    layout = Layout(data_dir)
    _check_begun(layout)
    if not looking:
        _check_owner(layout)
    try:
        lock = layout.acquire()
    except StoreBusy as error:
        raise Unreachable(f"{data_dir} is in use; stop the server that runs on it") from error
    try:
        _check_holds_data(layout)
        yield layout
    finally:
        os.close(lock)


def check_backup_target(to: Path) -> None:
    """LocalError unless a backup can be written there."""
    backups.check_free(to)


def backup(data_dir: Path, to: Path, progress: backups.Progress) -> backups.Manifest:
    """Of a stopped server: stores and journals as they are."""
    from tbfast.store.series import SeriesStore

    with locked(data_dir) as layout:
        layout.prepare()
        check_stores(layout)
        created_ms = time.time_ns() // 1_000_000
        store = SeriesStore(layout.series)  # one that does not open makes no backup
        cursors = store.cursors()
        store.close()
        about = backups.Manifest(version=__version__, created_ms=created_ms, cursors=cursors)
        return backups.write_backup(
            layout.root, backups.stored_files(layout.root), about, to, progress
        )


def copy_snapshot(text: bytes, to: Path, progress: backups.Progress) -> backups.Manifest:
    """Of a running server, from what it says about a snapshot."""
    try:
        made = msgspec.json.decode(text, type=_Snapshot)
    except msgspec.DecodeError as error:
        raise StoreError(f"the server sent no snapshot: {error}") from error
    about = backups.Manifest(version=made.version, created_ms=made.created_ms, cursors=made.cursors)
    return backups.write_backup(Path(made.root), made.files, about, to, progress)


def restore(source: Path, data_dir: Path, progress: backups.Progress) -> backups.Manifest:
    """A data directory of a backup."""
    try:
        return restores.restore(source, Layout(data_dir), progress)
    except StoreBusy as error:
        raise Unreachable(f"{data_dir} is in use; stop what uses it") from error


def recover(data_dir: Path, shard: str | None) -> "list[Recovered]":
    """Recovers damaged stores of a stopped server; what became of each."""
    from tbfast.store import recover as recovery

    with locked(data_dir) as layout:
        return recovery.recover(layout, shard, time.strftime("%Y%m%d-%H%M%S", time.gmtime()))


def examine(
    data_dir: Path,
    reserve_bytes: int,
    *,
    running: bool,
    deep: bool,
    repair: bool,
    progress: backups.Progress,
) -> "list[Finding]":
    """What is wrong with a data directory."""
    from tbfast.store import doctor

    examination = doctor.Doctor(Layout(data_dir), reserve_bytes, repair=repair)
    if running:
        examination.examine_directory()
        return examination.findings
    with locked(data_dir, looking=True) as layout:
        examination.examine_directory()
        total = doctor.stored_bytes(layout)
        done = 0

        def step(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            progress(min(done, total), total)

        examination.examine_stores(deep=deep, step=step)
    return examination.findings


class _Snapshot(msgspec.Struct):
    root: str
    version: str
    created_ms: int
    cursors: dict[int, tuple[int, int]]
    files: list[backups.StoredFile]


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
        self._reader: OfflineSeries | None = None

    def create(self, changes: DeviceChanges) -> DeviceView:
        """Straight into the registry; returns when it is on disk."""
        draft, secret = _draft(None, changes), _secret(changes)
        return _view(self._run(self._registry.add_device(draft, secret)))

    def change(self, device: DeviceView, changes: DeviceChanges) -> DeviceView:
        """As `create`."""
        present = self._run(self._registry.device(device.id))
        return _view(
            self._run(
                self._registry.change_device(
                    device.id, _draft(present, changes), secret=_secret(changes)
                )
            )
        )

    def find(self, text: str) -> DeviceView:
        """By name, then by id."""
        return _bare(self._run(self._found(text)))

    def with_credentials(self, device: DeviceView) -> DeviceView:
        """The same with what lets it in."""
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
        """From journals and sealed series, which are opened once."""
        from tbfast.store.series_reader import open_offline

        number = self._run(self._registry.device(device.id)).number
        if self._reader is None:
            self._reader = open_offline(self._data_dir)
        return self._run(self._reader.range(number, query))

    def close(self) -> None:
        """Release the stores, then the data directory's lock."""
        with self._undo:
            try:
                if self._reader is not None:
                    self._run(self._reader.close())
            finally:
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
    return DeviceView(
        id=device.id,
        name=device.name,
        type=device.type,
        label=device.label,
        created_time=device.created_ms,
        additional_info=device.additional_info,
    )


def _view(record: DeviceRecord) -> DeviceView:
    secret = record.credentials
    return _bare(record.device).let_in_by(secret.type, secret.credentials_id, secret.value)


def _draft(present: Device | None, changes: DeviceChanges) -> DeviceDraft:
    """What is to be saved; without a present device a new one."""
    kept: dict[str, Any] = {}
    if present is not None:
        names = ("name", "label", "customer_id", "data", "firmware_id", "software_id")
        kept = {name: getattr(present, name) for name in names}
        kept["profile_id"] = None if changes.profile else present.profile_id
    if changes.label is not None:
        kept["label"] = changes.label or None
    if changes.name is not None:
        kept["name"] = changes.name
    info = changes.merged_info(None if present is None else present.additional_info)
    return DeviceDraft(**kept, type=changes.profile, additional_info=info)


def _secret(changes: DeviceChanges) -> CredentialsDraft | None:
    given = changes.secret
    return None if given is None else CredentialsDraft(given.type, given.id, given.value)


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
