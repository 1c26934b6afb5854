"""Whether a device or profile may be given a package (REST spec 3, rule 6)."""

from typing import Literal, Protocol

from tbfast.control.rules import InvalidEntity

PackageType = Literal["FIRMWARE", "SOFTWARE"]


class PackageCheck(Protocol):
    """Raises InvalidEntity for a package that this profile's devices cannot be given."""

    async def __call__(
        self, package_id: str | None, type: PackageType, profile_id: str, /
    ) -> None: ...


async def no_packages(package_id: str | None, type: PackageType, profile_id: str, /) -> None:
    """There are none."""
    member = "firmwareId" if type == "FIRMWARE" else "softwareId"
    raise InvalidEntity(
        f"Can't assign a package: this node holds no OTA packages; leave {member} empty"
    )
