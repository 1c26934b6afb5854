"""Customers, to whom devices are assigned (REST spec 13.1)."""

from typing import Any, Final

import msgspec

CUSTOMER_TITLE_INDEX: Final = "customer-title:"
PUBLIC_TITLE: Final = "Public"


class Customer(msgspec.Struct, frozen=True, kw_only=True):
    """A customer as the registry knows it; ``title`` is unique."""

    id: str
    title: str
    country: str | None = None
    state: str | None = None
    city: str | None = None
    address: str | None = None
    address2: str | None = None
    zip: str | None = None
    phone: str | None = None
    email: str | None = None
    additional_info: dict[str, Any] | None = None
    created_ms: int
    version: int = 1

    @property
    def is_public(self) -> bool:
        """Whether everybody may see its devices."""
        return (self.additional_info or {}).get("isPublic") is True
