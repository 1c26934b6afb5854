"""Who asks, and what they may touch (REST spec 1.4)."""

from typing import Any, Final, Literal, Protocol

import msgspec
from starlette.requests import HTTPConnection

from tbfast.control.registry import Registry
from tbfast.control.rest import params
from tbfast.control.rest.errors import PERMISSION_DENIED, RestError
from tbfast.model.account import Authority
from tbfast.model.device import Device

Scheme = Literal["Bearer", "ApiKey"]

# Who may call an endpoint: nobody is asked; any account (a customer's user sees only that
# customer's devices); administrators of the tenant; of the system; either of them; whoever owns the
# data directory.
Access = Literal["anyone", "user", "tenant", "system", "admin", "owner"]


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """An account, or the owner of the data directory (no authority): that one may do everything.

    ``session``: empty for an API key. ``public``: nobody in particular, who may only look.
    """

    authority: Authority | None = None
    user_id: str | None = None
    customer_id: str | None = None
    session: str = ""
    public: bool = False

    def may(self, access: Access) -> bool:
        """Whether this caller may use endpoints of that kind."""
        match access:
            case "anyone" | "user":
                return True
            case "tenant":
                return self.authority in (None, "TENANT_ADMIN")
            case "system":
                return self.authority in (None, "SYS_ADMIN")
            case "admin":
                return self.authority != "CUSTOMER_USER"
            case "owner":
                return self.authority is None

    def of_customer(self, customer_id: str) -> bool:
        """Whether this caller may look at a customer."""
        return self.may("tenant") or self.customer_id == customer_id

    def sees(self, device: Device) -> bool:
        """Whether this caller may look at and act on a device."""
        match self.authority:
            case None | "TENANT_ADMIN":
                return True
            case "CUSTOMER_USER":
                return self.customer_id is not None and device.customer_id == self.customer_id
            case "SYS_ADMIN":
                return False


OWNER: Final = Caller()


class Gate(Protocol):
    """Tells who a request comes from."""

    async def caller(self, request: HTTPConnection) -> Caller:
        """The caller; RestError 401 for one that shows nothing valid."""

    async def by_secret(self, scheme: Scheme, secret: str) -> Caller:
        """The same for what came in another place than a header."""


class OwnersGate:
    """The socket in the data directory: only its owner can open it."""

    async def caller(self, request: HTTPConnection) -> Caller:
        """The owner, whatever the request says."""
        return OWNER

    async def by_secret(self, scheme: Scheme, secret: str) -> Caller:
        """The owner."""
        return OWNER


def caller_of(request: HTTPConnection) -> Caller:
    """The caller that was let in."""
    caller: Any = request.state.caller
    assert isinstance(caller, Caller)
    return caller


def refused() -> RestError:
    """403 code 20."""
    return RestError(403, PERMISSION_DENIED, "You don't have permission to perform this operation!")


async def visible_device(request: HTTPConnection, registry: Registry, name: str = "id") -> Device:
    """The device whose id is in the path.

    RestError 403 where the caller may not see it, NotFound where there is none.
    """
    device = await registry.device(params.entity_id(request.path_params[name]))
    if not caller_of(request).sees(device):
        raise refused()
    return device
