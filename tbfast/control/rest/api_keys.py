"""API keys over REST (REST spec 2)."""

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.accounts import Accounts
from tbfast.control.registry import wall_clock_ms
from tbfast.control.rest import params
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.endpoints import PAGING, Endpoint
from tbfast.control.rest.errors import bad_request
from tbfast.control.rest.paging import page_of
from tbfast.control.rest.shapes import EntityId, Page, Reference
from tbfast.control.rest.users import managed_user
from tbfast.model.account import ApiKey


class ApiKeyInput(msgspec.Struct, frozen=True, rename="camel"):
    """Body of POST /api/apiKey; expirationTime 0 = never."""

    user_id: Reference
    description: str
    enabled: bool = True
    expiration_time: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] = 0


class ApiKeyBody(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """An API key; ``value`` only in the answer that made it."""

    id: EntityId
    created_time: int
    tenant_id: EntityId
    user_id: EntityId
    description: str
    enabled: bool
    expiration_time: int
    expired: bool
    value: str | None = None


class ApiKeyRoutes:
    """Endpoints on top of the accounts; a user's keys are its own and those of who manages it."""

    def __init__(self, accounts: Accounts, tenant_id: str) -> None:
        self._accounts = accounts
        self._tenant_id = tenant_id

    def endpoints(self) -> list[Endpoint]:
        """Paths below /api/apiKey and /api/apiKeys."""
        one = "/api/apiKey/{id}"
        return [
            Endpoint(
                "POST", "/api/apiKey", self.create, "user", body=ApiKeyInput, answer=ApiKeyBody
            ),
            Endpoint(
                "GET", "/api/apiKeys/{id}", self.list, "user", answer=Page[ApiKeyBody], query=PAGING
            ),
            Endpoint("PUT", f"{one}/description", self.describe, "user", answer=ApiKeyBody),
            Endpoint("PUT", f"{one}/enabled/{{enabled}}", self.enable, "user", answer=ApiKeyBody),
            Endpoint("DELETE", one, self.delete, "user"),
        ]

    async def create(self, request: Request) -> Response:
        """A key for a user; its value is shown this once."""
        given = await params.body(request, ApiKeyInput)
        user = await managed_user(request, self._accounts, given.user_id.id)
        key, value = await self._accounts.keys.create(
            user.id, given.description, enabled=given.enabled, expires_ms=given.expiration_time
        )
        return json_answer(msgspec.structs.replace(self._body(key), value=value))

    async def list(self, request: Request) -> Response:
        """A page of a user's keys, without their values."""
        user = await managed_user(request, self._accounts, request.path_params["id"])
        return page_of(
            request,
            await self._accounts.keys.of_user(user.id),
            self._body,
            text=lambda key: key.description,
            sort={
                "createdTime": lambda key: key.created_ms,
                "description": lambda key: key.description.casefold(),
                "enabled": lambda key: key.enabled,
                "expirationTime": lambda key: key.expires_ms,
            },
        )

    async def describe(self, request: Request) -> Response:
        """Another description: the body as text."""
        key = await self._key(request)
        try:
            text = (await params.raw_body(request)).decode()
        except UnicodeDecodeError as error:
            raise bad_request("The description is not UTF-8") from error
        return json_answer(self._body(await self._accounts.keys.change(key.id, description=text)))

    async def enable(self, request: Request) -> Response:
        """Turn a key on or off."""
        key = await self._key(request)
        word = request.path_params["enabled"]
        if word not in ("true", "false"):
            raise bad_request("'enabled' must be true or false")
        changed = await self._accounts.keys.change(key.id, enabled=word == "true")
        return json_answer(self._body(changed))

    async def delete(self, request: Request) -> Response:
        """The key lets nobody in any more."""
        await self._accounts.keys.delete((await self._key(request)).id)
        return Response()

    async def _key(self, request: Request) -> ApiKey:
        key = await self._accounts.keys.get(params.entity_id(request.path_params["id"]))
        await managed_user(request, self._accounts, key.user_id)
        return key

    def _body(self, key: ApiKey) -> ApiKeyBody:
        return ApiKeyBody(
            id=EntityId("API_KEY", key.id),
            created_time=key.created_ms,
            tenant_id=EntityId("TENANT", self._tenant_id),
            user_id=EntityId("USER", key.user_id),
            description=key.description,
            enabled=key.enabled,
            expiration_time=key.expires_ms,
            expired=key.expired(wall_clock_ms()),
        )
