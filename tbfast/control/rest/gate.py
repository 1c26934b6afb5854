"""Lets in who shows a token or an API key (REST spec 2, 14.1)."""

from starlette.requests import HTTPConnection

from tbfast.control.accounts import AUTHENTICATION, Accounts, Denied, Visitor
from tbfast.control.rest.callers import Caller


class AccountsGate:
    """A `Gate` for requests from anywhere. Denied is answered 401."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def caller(self, request: HTTPConnection) -> Caller:
        """By X-Authorization or Authorization: "Bearer <token>" or "ApiKey <key>"."""
        headers = request.headers
        text = headers.get("x-authorization") or headers.get("authorization") or ""
        scheme, _, secret = text.partition(" ")
        match scheme.lower():
            case "bearer":
                return await self.by_token(secret.strip())
            case "apikey":
                return await self.by_api_key(secret.strip())
        raise Denied("Authentication failed", code=AUTHENTICATION)

    async def by_token(self, token: str) -> Caller:
        """The caller with this access token, for a WebSocket: ``?token=`` or ``authCmd``."""
        return _caller(await self._accounts.by_token(token))

    async def by_api_key(self, value: str) -> Caller:
        """The caller with this API key, likewise."""
        return _caller(await self._accounts.by_api_key(value))


def _caller(visitor: Visitor) -> Caller:
    user = visitor.user
    return Caller(
        authority=user.authority,
        user_id=None if visitor.public else user.id,
        customer_id=user.customer_id,
        session=visitor.session,
        public=visitor.public,
    )
