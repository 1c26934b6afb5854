"""LwM2M object models as object definition files describe them (LwM2M spec 2)."""

import msgspec


class ResourceModel(msgspec.Struct, frozen=True, kw_only=True):
    """One resource of an object; ``operations`` are letters of R, W, E."""

    id: int
    name: str
    operations: str = ""
    multiple: bool = False
    mandatory: bool = False
    type: str = ""


class ObjectModel(msgspec.Struct, frozen=True, kw_only=True):
    """One object in one version."""

    id: int
    version: str = "1.0"
    name: str
    multiple: bool = False
    mandatory: bool = False
    resources: tuple[ResourceModel, ...] = ()

    @property
    def key(self) -> str:
        """How profiles name it: ``{id}_{version}``."""
        return f"{self.id}_{self.version}"
