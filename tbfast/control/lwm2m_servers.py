"""The servers that LwM2M clients are told of in the bootstrap (LwM2M spec 9.3)."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tbfast.control.lwm2m_credentials import SecurityMode, check_der
from tbfast.control.rules import InvalidEntity
from tbfast.model.lwm2m import BOOTSTRAP, SERVER

_IDS: Final = range(1, 65_535)


class _Server(msgspec.Struct, rename="camel"):
    """An entry of the list; what only the client reads is checked for its type."""

    host: str
    port: int
    bootstrap_server_is: bool = False
    short_server_id: int | None = None
    security_mode: SecurityMode = "NO_SEC"
    server_public_key: str | None = None
    server_certificate: str | None = None
    client_hold_off_time: int | None = None
    bootstrap_server_account_timeout: int | None = None
    lifetime: int | None = None
    default_min_period: int | None = None
    notif_if_disabled: bool = True
    binding: str | None = None

    @property
    def title(self) -> str:
        """What errors call it."""
        return "Bootstrap Server" if self.bootstrap_server_is else "LwM2M Server"


class _Configuration(msgspec.Struct, rename="camel"):
    bootstrap: list[_Server] | None = None
    bootstrap_server_update_enable: bool = False


def checked_servers(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """``profileData.transportConfiguration`` of a LWM2M profile; a bootstrap server has no id.

    Raises InvalidEntity for a list that no client could use.
    """
    try:
        given = msgspec.convert(configuration, _Configuration)
    except msgspec.ValidationError as error:
        raise InvalidEntity(f"profileData.transportConfiguration: {error}") from error
    ids: set[int | None] = set()
    uris: set[tuple[str, int]] = set()
    for server in given.bootstrap or ():
        if server.bootstrap_server_is and not given.bootstrap_server_update_enable:
            raise InvalidEntity(
                'Bootstrap config must not include "Bootstrap Server": '
                '"Include Bootstrap Server updates" is off.'
            )
        _check(server)
        short_id = server.short_server_id or None
        if short_id in ids:
            raise InvalidEntity(f'{server.title} "Short server Id" {short_id} is not unique!')
        if (server.host, server.port) in uris:
            uri = f"{server.host}:{server.port}"
            raise InvalidEntity(f'{server.title} "Host + port" {uri} is not unique!')
        ids.add(short_id)
        uris.add((server.host, server.port))
    if not given.bootstrap:
        return dict(configuration)
    servers = [
        entry | {"shortServerId": None} if entry.get("bootstrapServerIs") else entry
        for entry in configuration["bootstrap"]
    ]
    return {**configuration, "bootstrap": servers}


def _check(server: _Server) -> None:
    short_id = server.short_server_id
    if server.bootstrap_server_is:
        if short_id not in (None, 0):
            raise InvalidEntity("Bootstrap Server ShortServerId must be null!")
    elif short_id not in _IDS:
        raise InvalidEntity("LwM2M Server ShortServerId must be 1 to 65534!")
    described = BOOTSTRAP if server.bootstrap_server_is else SERVER
    mode = server.security_mode
    port = described.port if mode == "NO_SEC" else described.security_port
    if server.port != port:
        raise InvalidEntity(
            f'{server.title} "Port" value = {server.port}. '
            f"This value for security {mode} must be {port}!"
        )
    if mode in ("RPK", "X509"):
        check_der(f"{server.title} {mode} public key", server.server_public_key)
