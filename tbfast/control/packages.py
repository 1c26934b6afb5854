"""Bytes of OTA packages: received in bounded memory, kept once they are whole (REST spec 9)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol, TypeVar

from tbfast import limits
from tbfast.control.registry import Registry
from tbfast.control.rules import InvalidEntity
from tbfast.errors import ResourceError, StoreError, StoreFull
from tbfast.model.package import ChecksumAlgorithm, Package
from tbfast.store.digests import new_digest
from tbfast.store.packages import Incoming, PackageFiles

_READ_BYTES: Final = 262_144

T = TypeVar("T")


class Room(Protocol):
    """The room that may be used: tbfast.store.space.Space."""

    def admits(self, nbytes: int) -> bool: ...


class PackageService:
    """All methods belong to one event loop; files are touched by one thread of its own."""

    def __init__(
        self, registry: Registry, files: PackageFiles, room: Room, *, max_bytes: int
    ) -> None:
        self._registry = registry
        self._files = files
        self._room = room
        self._thread = ThreadPoolExecutor(1, "packages")
        self._receiving: set[str] = set()  # bound: PACKAGE_UPLOADS
        self.max_bytes = max_bytes  # of a request that uploads one

    async def open(self) -> int:
        """To be called first: removes what a crash left; how many files that were."""
        kept = {p.id async for p in self._registry.packages.all() if p.has_data}
        return await self._in_thread(lambda: self._files.open(kept.__contains__))

    def close(self) -> None:
        """Waits for the file that is being written."""
        self._thread.shutdown()

    @contextlib.asynccontextmanager
    async def receiving(
        self, package_id: str, algorithm: ChecksumAlgorithm
    ) -> "AsyncIterator[Upload]":
        """An upload to a package without data; nothing stays of one that is not kept.

        Raises NotFound, InvalidEntity, ResourceError, StoreError.
        """
        packages = self._registry.packages
        with self._registry.references.held(package_id), self._alone(package_id):
            package = await packages.get(package_id)
            if package.url is not None:
                raise InvalidEntity("This otaPackage is at its URL; it takes no data!")
            if package.has_data:
                raise InvalidEntity("Updating otaPackage data is prohibited!")
            incoming = await self._in_thread(lambda: self._files.begin(package_id))
            upload = Upload(self, package, incoming, algorithm)
            try:
                yield upload
            finally:
                if not upload.kept:
                    await asyncio.shield(self._in_thread(incoming.discard))

    @contextlib.contextmanager
    def _alone(self, package_id: str) -> Iterator[None]:
        if package_id in self._receiving:
            raise InvalidEntity("The data of this otaPackage is being uploaded already!")
        if len(self._receiving) >= limits.PACKAGE_UPLOADS:
            raise ResourceError("too many packages are being uploaded; try again")
        self._receiving.add(package_id)
        try:
            yield
        finally:
            self._receiving.discard(package_id)

    async def write(self, work: Callable[[], T], nbytes: int) -> T:
        """Work that writes so many bytes; StoreFull when there is no room for them."""
        if not self._room.admits(nbytes):
            raise StoreFull("the disk is full; free space and try again")
        return await self._in_thread(work)

    async def keep(
        self, upload: "Upload", *, file_name: str, content_type: str, checksum: str
    ) -> Package:
        """The file and then the entry of a whole upload."""
        await self._in_thread(upload.incoming.finish)
        try:
            return await self._registry.packages.set_data(
                upload.package,
                file_name=file_name,
                content_type=content_type,
                algorithm=upload.algorithm,
                checksum=checksum,
                size=upload.size,
            )
        except InvalidEntity:  # a store that failed may have taken the entry: the next start knows
            await self._in_thread(lambda: self._files.remove(upload.package.id))
            raise

    async def read(self, package: Package) -> AsyncIterator[bytes]:
        """All bytes of a package, a piece at a time; StoreError if they end early."""
        size = package.size or 0
        for offset in range(0, size, _READ_BYTES):
            length = min(_READ_BYTES, size - offset)
            part = await self._in_thread(self._reader(package.id, offset, length))
            if part is None or len(part) < length:
                raise StoreError(f"the file of OTA package {package.id} is missing or cut short")
            yield part

    def _reader(self, package_id: str, offset: int, length: int) -> Callable[[], bytes | None]:
        return lambda: self._files.read(package_id, offset, length)

    async def delete(self, package_id: str) -> None:
        """Delete a package that nothing refers to, then its file."""
        package = await self._registry.packages.delete(package_id)
        if package.has_data:
            await self._in_thread(lambda: self._files.remove(package_id))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


class Upload:
    """Bytes on their way in, hashed as they come."""

    def __init__(
        self,
        service: PackageService,
        package: Package,
        incoming: Incoming,
        algorithm: ChecksumAlgorithm,
    ) -> None:
        self._service = service
        self._digest = new_digest(algorithm)
        self.package = package
        self.incoming = incoming
        self.algorithm = algorithm
        self.size = 0
        self.kept = False

    async def write(self, data: bytes) -> None:
        """More of the file."""

        def work() -> None:
            self.incoming.write(data)
            self._digest.update(data)

        self.size += len(data)
        await self._service.write(work, len(data))

    async def keep(self, *, file_name: str, content_type: str, checksum: str) -> Package:
        """The package with its data, durable on return.

        checksum: as it should be, "" = whatever it is; InvalidEntity if it is another.
        """
        found = self._digest.digest().hex()
        if checksum and checksum.lower() != found:
            raise InvalidEntity("Wrong otaPackage file!")
        if not self.size:
            raise InvalidEntity("The otaPackage file is empty!")
        package = await self._service.keep(
            self, file_name=file_name, content_type=content_type, checksum=found
        )
        self.kept = True
        return package
