"""OTA packages in the registry, and who may be given one (REST spec 9; 3, rule 6)."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import msgspec

from tbfast import limits
from tbfast.control.registry.references import References
from tbfast.control.rules import InvalidEntity, UniqueConflict, checked, checked_info
from tbfast.errors import Conflict, NotFound
from tbfast.model.device import DEVICE_OF_INDEX
from tbfast.model.package import (
    PACKAGE_INDEX,
    PROFILE_OF_INDEX,
    ChecksumAlgorithm,
    Package,
    PackageType,
)
from tbfast.store.registry import RegistryStore, Write

_decoder = msgspec.msgpack.Decoder(Package)

_EVER: Final = "packages-ever"  # of the kind "node"

# Never changed once they are set; the words of refusals.
_FIXED: Final = {
    "type": "type",
    "title": "title",
    "version": "version",
    "tag": "tag",
    "profile_id": "device profile",
    "url": "url",
    "file_name": "file name",
    "content_type": "content type",
    "checksum_algorithm": "checksum algorithm",
    "checksum": "checksum",
    "size": "data size",
}


class PackageDraft(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller may say; of an existing package only ``additional_info`` changes."""

    profile_id: str | None = None
    type: PackageType
    title: str
    version: str
    tag: str | None = None
    url: str | None = None
    file_name: str | None = None
    content_type: str | None = None
    checksum_algorithm: ChecksumAlgorithm | None = None
    checksum: str | None = None
    size: int | None = None
    additional_info: dict[str, Any] | None = None


class Packages:
    """All methods belong to one event loop; writes return when they are on disk."""

    def __init__(
        self, store: RegistryStore, references: References, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._references = references
        self._now_ms = now_ms

    # Reads

    async def get(self, package_id: str) -> Package:
        """A package by id."""
        entity = await self._store.get("ota_package", package_id)
        if entity is None:
            raise NotFound(f"Ota package with id [{package_id}] is not found")
        return _decoder.decode(entity.value)

    def peek(self, package_id: str | None) -> Package | None:
        """A package as last written."""
        entity = None if package_id is None else self._store.peek("ota_package", package_id)
        return None if entity is None else _decoder.decode(entity.value)

    async def all(self) -> AsyncIterator[Package]:
        """All packages, in id order."""
        async for entity in self._store.entities("ota_package"):
            yield _decoder.decode(entity.value)

    def profile_ids_of(self, package_id: str) -> list[str]:
        """Ids of the profiles that give their devices this package."""
        return self._store.keys(f"{PROFILE_OF_INDEX}{package_id}:")

    async def check(self, package_id: str, type: PackageType, profile_id: str) -> None:
        """InvalidEntity for a package that this profile's devices cannot be given."""
        what = type.lower()
        package = self.peek(package_id)
        if package is None:
            raise InvalidEntity(f"Can't assign non-existent {what}!")
        if package.type != type:
            raise InvalidEntity(f"Can't assign {what} with type: {package.type}!")
        if not package.usable:
            raise InvalidEntity(f"Can't assign {what} with empty data!")
        if package.profile_id != profile_id:
            raise InvalidEntity(f"Can't assign {what} with different deviceProfile!")

    @property
    def ever(self) -> bool:
        """Whether this node has ever had a package."""
        return self._store.peek("node", _EVER) is not None

    # Writes

    async def save(self, draft: PackageDraft, package_id: str | None = None) -> Package:
        """Create a package, or overwrite the information on the one with this id."""
        info = checked_info(draft.additional_info)
        if package_id is not None:
            with self._references.held(package_id):
                present = await self.get(package_id)
                _check_fixed(draft, present)
                return await self._put(msgspec.structs.replace(present, additional_info=info))
        profile_id = draft.profile_id
        if profile_id is None:
            raise InvalidEntity("The device profile of an OTA package should be specified!")
        with self._references.held(profile_id):
            if self._store.peek("device_profile", profile_id) is None:
                raise InvalidEntity("OtaPackage is referencing to non-existent device profile!")
            if await self._store.count("ota_package") >= limits.REGISTRY_PACKAGES:
                raise InvalidEntity(f"there are {limits.REGISTRY_PACKAGES} OTA packages already")
            if not self.ever:
                with contextlib.suppress(Conflict):  # another caller was faster
                    await self._store.commit(
                        Write(kind="node", id=_EVER, expected=0, value=b"", change="node")
                    )
            fields = msgspec.structs.asdict(draft) | {"additional_info": info}
            if draft.url is None:  # of a package that is to be uploaded only the upload says this
                known = ("file_name", "content_type", "checksum_algorithm", "checksum", "size")
                fields |= dict.fromkeys(known)
            return await self._put(
                _checked(
                    Package(**fields, id=str(uuid.uuid1()), created_ms=self._now_ms(), revision=0)
                )
            )

    async def set_data(
        self,
        package: Package,
        *,
        file_name: str,
        content_type: str,
        algorithm: ChecksumAlgorithm,
        checksum: str,
        size: int,
    ) -> Package:
        """The bytes are in their file; Conflict if the package changed since it was read."""
        made = msgspec.structs.replace(
            package,
            has_data=True,
            file_name=checked("file name", file_name),
            content_type=checked("content type", content_type),
            checksum_algorithm=algorithm,
            checksum=checksum,
            size=size,
        )
        return await self._put(made)

    async def delete(self, package_id: str) -> Package:
        """Delete a package that no device and no profile refers to."""
        with self._references.alone(package_id):
            package = await self.get(package_id)
            if self._store.keys(f"{DEVICE_OF_INDEX}{package_id}:", limit=1):
                raise InvalidEntity("The otaPackage referenced by the devices cannot be deleted!")
            if self.profile_ids_of(package_id):
                raise InvalidEntity(
                    "The otaPackage referenced by the device profile cannot be deleted!"
                )
            await self._store.commit(
                Write(
                    kind="ota_package",
                    id=package_id,
                    expected=package.revision,
                    value=None,
                    change="ota_package",
                )
            )
            return package

    async def _put(self, package: Package) -> Package:
        key = f"{PACKAGE_INDEX}{package.type}:{package.title}\n{package.version}"
        made = msgspec.structs.replace(package, revision=package.revision + 1)
        try:
            await self._store.commit(
                Write(
                    kind="ota_package",
                    id=made.id,
                    expected=package.revision,
                    value=msgspec.msgpack.encode(made),
                    unique=(key,),
                    change="ota_package",
                )
            )
        except Conflict as error:
            owner = await self._store.find(key)
            if owner is not None and owner[1] != made.id:
                raise UniqueConflict(
                    "OtaPackage with such title and version already exists!"
                ) from error
            raise
        return made


def _checked(package: Package) -> Package:
    checked("OTA package title", package.title)
    checked("OTA package version", package.version)
    if package.tag:
        checked("OTA package tag", package.tag)
    if package.url is not None:
        checked("OTA package URL", package.url)
        for what in ("file_name", "content_type", "checksum"):
            if value := getattr(package, what):
                checked(_FIXED[what], value)
        if package.size is not None and not 0 <= package.size < 1 << 63:
            raise InvalidEntity("The data size should be a number of bytes")
    return package


def _check_fixed(draft: PackageDraft, present: Package) -> None:
    """What is left out counts as unchanged."""
    for field, what in _FIXED.items():
        given = getattr(draft, field)
        if given is not None and given != getattr(present, field):
            raise InvalidEntity(f"Updating otaPackage {what} is prohibited!")
