"""Lets in who shows a token or an API key (REST spec 2, 14.1)."""

from typing import Final

from starlette.requests import HTTPConnection

from tbfast.control.accounts import Accounts, Denied, Visitor
from tbfast.control.rest.callers import Caller, Scheme
from tbfast.control.rest.errors import not_let_in

_SCHEMES: Final[dict[str, Scheme]] = {"bearer": "Bearer", "apikey": "ApiKey"}


class AccountsGate:
    """A `Gate` for requests from anywhere."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def caller(self, request: HTTPConnection) -> Caller:
        """By X-Authorization or Authorization: "Bearer <token>" or "ApiKey <key>"."""
        headers = request.headers
        text = headers.get("x-authorization") or headers.get("authorization") or ""
        name, _, secret = text.partition(" ")
        scheme = _SCHEMES.get(name.lower())
        if scheme is None:
            raise not_let_in(Denied("Authentication failed"))
        return await self.by_secret(scheme, secret.strip())

    async def by_secret(self, scheme: Scheme, secret: str) -> Caller:
        """The caller with an access token or an API key."""
        try:
            if scheme == "Bearer":
                return _caller(await self._accounts.by_token(secret))
            return _caller(await self._accounts.by_api_key(secret))
        except Denied as error:
            raise not_let_in(error) from error


def _caller(visitor: Visitor) -> Caller:
    user = visitor.user
    return Caller(
        authority=user.authority,
        user_id=None if visitor.public else user.id,
        customer_id=user.customer_id,
        session=visitor.session,
        public=visitor.public,
    )
