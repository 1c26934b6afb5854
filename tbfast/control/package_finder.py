"""Which package a device is to have: its own, else its profile's (MQTT spec 6.3)."""

from typing import Final

from tbfast.control.registry import Registry
from tbfast.errors import NotFound
from tbfast.model.device import Device
from tbfast.model.operations import FindPackage, PackageFound, Refusal
from tbfast.model.package import Package, PackageType

_NOTHING: Final = Refusal("unassigned", "no package is assigned to the device")
_ELSEWHERE: Final = Refusal("elsewhere", "the package is at a URL")
_DIFFERENT: Final = Refusal("different", "another package is assigned to the device")


class PackageFinder:
    """All methods belong to one event loop."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def of_device(self, device: Device, type: PackageType) -> Package | None:
        """The package of this type; None where there is none."""
        member = "firmware_id" if type == "FIRMWARE" else "software_id"
        package_id = getattr(device, member)
        if package_id is None:
            try:
                profile = await self._registry.profiles.get(device.profile_id)
            except NotFound:  # deleted with the device's last change not read yet
                return None
            package_id = getattr(profile, member)
        return self._registry.packages.peek(package_id)

    async def find(self, number: int, wanted: FindPackage) -> PackageFound | Refusal:
        """What a device asked for."""
        device = await self._registry.device_by_number(number)
        package = None if device is None else await self.of_device(device, wanted.kind)
        if package is None or not package.usable:
            return _NOTHING
        if package.url is not None:
            return _ELSEWHERE
        if wanted.title not in (None, package.title):
            return _DIFFERENT
        if wanted.version not in (None, package.version):
            return _DIFFERENT
        return PackageFound(
            package.id, package.size or 0, package.file_name or "", package.content_type or ""
        )
