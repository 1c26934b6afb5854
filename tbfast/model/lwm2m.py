"""LwM2M object models as object definition files describe them, and where the servers are."""

from typing import Final

import msgspec


class ServerAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where clients find a server: without security, and with DTLS (LwM2M spec 1.1, 1.2).

    ``short_id`` None: the bootstrap server, which has none.
    """

    short_id: int | None = None
    host: str = "0.0.0.0"  # as ThingsBoard says it; profile editors put in what clients can reach
    port: int
    security_port: int


SERVER: Final = ServerAddress(short_id=123, port=5685, security_port=5686)
BOOTSTRAP: Final = ServerAddress(port=5687, security_port=5688)


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
