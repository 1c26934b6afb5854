"""Logins, tokens and passwords over REST (REST spec 2)."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.accounts import Accounts, Pair
from tbfast.control.rest import params
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.callers import caller_of
from tbfast.control.rest.endpoints import Endpoint
from tbfast.control.rest.peer import peer_of
from tbfast.control.rest.users import UserBody, own_id, user_body


class _Login(msgspec.Struct):
    username: str
    password: str


class _PublicLogin(msgspec.Struct, rename="camel"):
    public_id: str


class _Refresh(msgspec.Struct, rename="camel"):
    refresh_token: str


class _PasswordChange(msgspec.Struct, rename="camel"):
    current_password: str
    new_password: str


class _Activation(msgspec.Struct, rename="camel"):
    activate_token: str
    password: str


class AuthRoutes:
    """Endpoints on top of the accounts."""

    def __init__(self, accounts: Accounts, tenant_id: str) -> None:
        self._accounts = accounts
        self._tenant_id = tenant_id

    def endpoints(self) -> list[Endpoint]:
        """Paths below /api/auth and /api/noauth."""
        base = "/api/auth"
        return [
            Endpoint("POST", f"{base}/login", self.login, "anyone", body=_Login, answer=Pair),
            Endpoint(
                "POST", f"{base}/login/public", self.login_public, "anyone",
                body=_PublicLogin, answer=Pair,
            ),
            Endpoint("POST", f"{base}/token", self.refresh, "anyone", body=_Refresh, answer=Pair),
            Endpoint("GET", f"{base}/user", self.user, "user", answer=UserBody),
            Endpoint("POST", f"{base}/logout", self.logout, "user"),
            Endpoint(
                "POST", f"{base}/changePassword", self.change_password, "user",
                body=_PasswordChange, answer=Pair,
            ),
            Endpoint(
                "POST", "/api/noauth/activate", self.activate, "anyone",
                body=_Activation, answer=Pair,
            ),
        ]  # fmt: skip

    async def login(self, request: Request) -> Response:
        """Tokens for an email and its password."""
        given = await params.body(request, _Login)
        return json_answer(
            await self._accounts.login(given.username, given.password, peer_of(request))
        )

    async def login_public(self, request: Request) -> Response:
        """Tokens that show what belongs to a public customer."""
        given = await params.body(request, _PublicLogin)
        return json_answer(await self._accounts.login_public(params.entity_id(given.public_id)))

    async def refresh(self, request: Request) -> Response:
        """New tokens for a refresh token."""
        given = await params.body(request, _Refresh)
        return json_answer(await self._accounts.refresh(given.refresh_token))

    async def user(self, request: Request) -> Response:
        """The account that asks."""
        user = await self._accounts.users.get(own_id(request))
        return json_answer(user_body(user, self._tenant_id))

    async def logout(self, request: Request) -> Response:
        """The session's tokens die; an API key has no session."""
        caller = caller_of(request)
        if caller.session:
            await self._accounts.logout(own_id(request), caller.session)
        return Response()

    async def change_password(self, request: Request) -> Response:
        """New tokens; all older ones of the user die."""
        given = await params.body(request, _PasswordChange)
        return json_answer(
            await self._accounts.change_password(
                own_id(request), given.current_password, given.new_password
            )
        )

    async def activate(self, request: Request) -> Response:
        """The first password of an account, chosen by whoever has its activation link."""
        given = await params.body(request, _Activation)
        return json_answer(await self._accounts.activate(given.activate_token, given.password))
