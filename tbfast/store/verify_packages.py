"""Whether the files of OTA packages are what the registry says of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from tbfast.errors import StoreError
from tbfast.model.package import Package
from tbfast.store import rocks
from tbfast.store.digests import new_digest
from tbfast.store.layout import Layout
from tbfast.store.registry import VALUE_FORMAT, Entity
from tbfast.store.verify import Step, open_read_only

_FAMILY: Final = "ota_package"
_STEP_BYTES: Final = 1 << 20

_entities = msgspec.msgpack.Decoder(Entity)
_packages = msgspec.msgpack.Decoder(Package)


def packages_damage(layout: Layout, *, deep: bool, step: Step) -> Iterator[tuple[Path, str]]:
    """(file, what is wrong with it); deep: also by its checksum.  The registry is whole."""
    for package in _all(layout.registry):
        path = layout.packages / package.id
        if not package.has_data:
            continue
        name = f"of the package {package.title} {package.version}"
        with rocks.translated(path):
            if not path.is_file():
                yield path, f"is missing; it is the file {name}"
            elif package.size is not None and path.stat().st_size != package.size:
                found = path.stat().st_size
                yield path, f"has {found} of {package.size} bytes; it is the file {name}"
            elif deep and not _is_whole(path, package, step):
                yield path, f"has another checksum than when it was stored; it is the file {name}"


def _all(registry: Path) -> list[Package]:
    db, families = open_read_only(registry)
    try:
        if _FAMILY not in families:
            return []
        family = db.get_column_family(_FAMILY)
        try:
            return [_decoded(registry, raw) for _, raw in rocks.pairs(family, registry)]
        finally:
            rocks.close(family, registry)
    finally:
        rocks.close(db, registry)


def _decoded(registry: Path, raw: bytes) -> Package:
    try:
        return _packages.decode(_entities.decode(raw.removeprefix(VALUE_FORMAT)).value)
    except msgspec.DecodeError as error:
        raise StoreError(f"{registry}: a package cannot be read: {error}") from error


def _is_whole(path: Path, package: Package, step: Step) -> bool:
    if package.checksum_algorithm is None or package.checksum is None:
        return True
    digest = new_digest(package.checksum_algorithm)
    with path.open("rb") as file:
        while data := file.read(_STEP_BYTES):
            digest.update(data)
            step(len(data))
    return digest.digest().hex() == package.checksum.lower()
