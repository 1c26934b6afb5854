"""User accounts over REST (REST spec 13.2)."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from tbfast import limits
from tbfast.control.accounts import Accounts, Pair
from tbfast.control.rest import params
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.callers import Caller, caller_of, refused
from tbfast.control.rest.endpoints import PAGING, Endpoint, Query
from tbfast.control.rest.errors import bad_request
from tbfast.control.rest.paging import page_of
from tbfast.control.rest.peer import scheme_of
from tbfast.control.rest.shapes import NULL_UUID, EntityId, Page, Reference
from tbfast.errors import NotFound
from tbfast.model.account import Authority, User

_SORT: Final = {
    "createdTime": lambda user: user.created_ms,
    "email": lambda user: user.email.casefold(),
    "firstName": lambda user: (user.first_name or "").casefold(),
    "lastName": lambda user: (user.last_name or "").casefold(),
    "authority": lambda user: user.authority,
}


class UserInput(msgspec.Struct, frozen=True, rename="camel"):
    """Body of POST /api/user; other members are ignored."""

    email: str
    authority: Authority
    id: Reference | None = None
    customer_id: Reference | None = None
    first_name: str | None = None
    last_name: str | None = None
    phone: str | None = None
    additional_info: dict[str, Any] | None = None
    version: int | None = None


class UserBody(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A user (REST spec 13.2)."""

    id: EntityId
    created_time: int
    additional_info: dict[str, Any] | None
    tenant_id: EntityId
    customer_id: EntityId
    email: str
    authority: Authority
    first_name: str | None
    last_name: str | None
    phone: str | None
    version: int
    name: str


class _Password(msgspec.Struct):
    password: str


class _ActivationLink(msgspec.Struct, rename="camel"):
    value: str
    ttl_ms: int


def user_body(user: User, tenant_id: str) -> UserBody:
    """A user as clients read it; its password is no part of it."""
    return UserBody(
        id=EntityId("USER", user.id),
        created_time=user.created_ms,
        additional_info=user.additional_info,
        tenant_id=EntityId("TENANT", NULL_UUID if user.authority == "SYS_ADMIN" else tenant_id),
        customer_id=EntityId("CUSTOMER", user.customer_id or NULL_UUID),
        email=user.email,
        authority=user.authority,
        first_name=user.first_name,
        last_name=user.last_name,
        phone=user.phone,
        version=user.version,
        name=user.email,
    )


def own_id(request: Request) -> str:
    """Id of the account that asks; NotFound for the owner of the socket and for the public."""
    user_id = caller_of(request).user_id
    if user_id is None:
        raise NotFound("There is no account behind this request")
    return user_id


def manages(caller: Caller, authority: Authority) -> bool:
    """Whether accounts of that authority are the caller's to make, change and delete."""
    match caller.authority:
        case None:
            return True
        case "SYS_ADMIN":
            return authority != "CUSTOMER_USER"
        case "TENANT_ADMIN":
            return authority != "SYS_ADMIN"
        case "CUSTOMER_USER":
            return False


async def managed_user(request: Request, accounts: Accounts, user_id: str) -> User:
    """An account that the caller manages, or its own; RestError 403, NotFound."""
    user = await accounts.users.get(params.entity_id(user_id))
    caller = caller_of(request)
    if caller.user_id != user.id and not manages(caller, user.authority):
        raise refused()
    return user


class UserRoutes:
    """Endpoints on top of the accounts."""

    def __init__(self, accounts: Accounts, tenant_id: str) -> None:
        self._accounts = accounts
        self._tenant_id = tenant_id

    def endpoints(self) -> list[Endpoint]:
        """Paths in the order they must be tried."""
        one = "/api/user/{id}"
        return [
            Endpoint(
                "POST", "/api/user", self.save, "user", body=UserInput, answer=UserBody,
                query=(Query(name="sendActivationMail", type=bool),),
            ),
            Endpoint("GET", one, self.get, "user", answer=UserBody),
            Endpoint("DELETE", one, self.delete, "admin"),
            Endpoint("GET", f"{one}/token", self.token, "admin", answer=Pair),
            Endpoint("POST", f"{one}/password", self.set_password, "admin", body=_Password),
            Endpoint("GET", f"{one}/activationLink", self.activation_link, "admin"),
            Endpoint(
                "GET", f"{one}/activationLinkInfo", self.activation_link_info, "admin",
                answer=_ActivationLink,
            ),
            Endpoint("GET", "/api/users", self.list, "admin", answer=Page[UserBody], query=PAGING),
            Endpoint(
                "GET", "/api/customer/{id}/users", self.of_customer, "tenant",
                answer=Page[UserBody], query=PAGING,
            ),
        ]  # fmt: skip

    async def save(self, request: Request) -> Response:
        """Create an account, or update one when the body has an id; no mail is sent."""
        given = await params.body(request, UserInput)
        if given.id is not None:
            return self._user(await self._update(request, params.entity_id(given.id.id), given))
        if not manages(caller_of(request), given.authority):
            raise refused()
        made = await self._accounts.users.create(
            given.email,
            given.authority,
            customer_id=_customer_id(given),
            first_name=given.first_name,
            last_name=given.last_name,
            phone=given.phone,
            additional_info=given.additional_info,
        )
        return self._user(made)

    async def _update(self, request: Request, user_id: str, given: UserInput) -> User:
        user = await managed_user(request, self._accounts, user_id)
        if given.authority != user.authority:
            raise bad_request("Can't update user authority!")
        if given.customer_id is not None and _customer_id(given) != user.customer_id:
            raise bad_request("Can't update user customer id!")
        return await self._accounts.users.update(
            user_id,
            email=given.email,
            first_name=given.first_name,
            last_name=given.last_name,
            phone=given.phone,
            additional_info=given.additional_info,
            version=given.version,
        )

    async def get(self, request: Request) -> Response:
        """An account by id: one's own, or one that the caller manages."""
        return self._user(await self._managed(request))

    async def delete(self, request: Request) -> Response:
        """Delete an account with its API keys; its tokens are dead."""
        user = await self._managed(request)
        if user.id == caller_of(request).user_id:
            raise bad_request("Users can't delete their own account!")
        await self._accounts.delete_user(user.id)
        return Response()

    async def token(self, request: Request) -> Response:
        """Tokens for acting as another user."""
        return json_answer(self._accounts.pair(await self._managed(request)))

    async def set_password(self, request: Request) -> Response:
        """Give an account a password; all of its tokens die."""
        user = await self._managed(request)
        given = await params.body(request, _Password)
        await self._accounts.set_password(user.id, given.password)
        return Response()

    async def activation_link(self, request: Request) -> Response:
        """Where an account that has no password yet gets one, as text."""
        return PlainTextResponse(await self._link(request))

    async def activation_link_info(self, request: Request) -> Response:
        """The same with the time it is valid for."""
        ttl_ms = limits.ACTIVATION_TOKEN_S * 1000
        return json_answer(_ActivationLink(await self._link(request), ttl_ms))

    async def list(self, request: Request) -> Response:
        """A page of the accounts that the caller manages."""
        caller = caller_of(request)
        users = await self._accounts.users.all()
        return self._page(request, [user for user in users if manages(caller, user.authority)])

    async def of_customer(self, request: Request) -> Response:
        """A page of a customer's users."""
        customer_id = params.entity_id(request.path_params["id"])
        users = await self._accounts.users.all()
        return self._page(request, [user for user in users if user.customer_id == customer_id])

    async def _managed(self, request: Request) -> User:
        return await managed_user(request, self._accounts, request.path_params["id"])

    async def _link(self, request: Request) -> str:
        token = self._accounts.activation_token(await self._managed(request))
        host = request.headers.get("host", "localhost")
        return f"{scheme_of(request)}://{host}/api/noauth/activate?activateToken={token}"

    def _page(self, request: Request, users: Sequence[User]) -> Response:
        return page_of(
            request,
            users,
            lambda user: user_body(user, self._tenant_id),
            text=lambda user: user.email,
            sort=_SORT,
        )

    def _user(self, user: User) -> Response:
        return json_answer(user_body(user, self._tenant_id))


def _customer_id(given: UserInput) -> str | None:
    if given.customer_id is None or given.customer_id.id == NULL_UUID:
        return None
    return params.entity_id(given.customer_id.id)
