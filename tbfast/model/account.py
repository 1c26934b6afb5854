"""People and programs that may use the management API (REST spec 1.4, 2, 13.2)."""

from typing import Any, Literal

import msgspec

Authority = Literal["SYS_ADMIN", "TENANT_ADMIN", "CUSTOMER_USER"]

EMAIL_INDEX = "user-email:"
API_KEY_INDEX = "api-key:"


class User(msgspec.Struct, frozen=True, kw_only=True):
    """An account.

    ``password`` is a salted hash, None until the account is activated. ``generation`` grows with
    the password: tokens of an earlier one are dead. ``demo``: its password is known to everybody,
    so it is let in only where the server was started for that. ``version`` grows by one per save.
    """

    id: str
    email: str
    authority: Authority
    customer_id: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    phone: str | None = None
    additional_info: dict[str, Any] | None = None
    password: str | None = None
    generation: int = 0
    demo: bool = False
    created_ms: int
    version: int = 1


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A secret a program shows instead of a login; only its SHA-256 (hex) is kept.

    ``expires_ms`` 0 = never.
    """

    id: str
    user_id: str
    description: str
    digest: str
    enabled: bool = True
    expires_ms: int = 0
    created_ms: int

    def expired(self, now_ms: int) -> bool:
        """Whether its time is over."""
        return 0 < self.expires_ms <= now_ms
