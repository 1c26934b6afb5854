"""The tenant profile: where rate limits are set (REST spec 13.3)."""

from typing import Any, Final

import msgspec

from tbfast.model.rates import NAMES

CONFIGURATION: Final[dict[str, Any]] = {"type": "DEFAULT", "maxDevices": 0} | dict.fromkeys(NAMES)


class TenantProfile(msgspec.Struct, frozen=True, kw_only=True):
    """The one tenant's; ``data`` is ``profileData`` as it was given, completed by defaults."""

    id: str
    name: str = "Default"
    description: str | None = None
    isolated: bool = False
    data: dict[str, Any] = msgspec.field(default_factory=lambda: {"configuration": CONFIGURATION})
    version: int = 0  # grows with every save
