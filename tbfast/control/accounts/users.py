"""The accounts as entities of the registry: REST spec 13.2."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any, Final

import msgspec

from tbfast import limits
from tbfast.control.rules import (
    InvalidEntity,
    UniqueConflict,
    check_version,
    checked,
    checked_info,
    encodable,
)
from tbfast.errors import Conflict, NotFound
from tbfast.model.account import EMAIL_INDEX, Authority, User
from tbfast.store.registry import Entity, RegistryStore, Write

_decoder: Final = msgspec.msgpack.Decoder(User)


def _email_key(email: str) -> str:
    """Letters of either case name the same account."""
    return EMAIL_INDEX + email.casefold()


def _checked_email(email: str) -> str:
    name, at, host = checked("user email", email).partition("@")
    if not (name and at and host) or "@" in host or any(c.isspace() for c in email):
        raise InvalidEntity(f"Invalid email address format '{email[:64]}'!")
    return email


def _checked_text(what: str, text: str | None) -> str | None:
    return checked(what, text) if text else text


class Users:
    """Single accounts are compare-and-set; raises as the registry does."""

    def __init__(self, store: RegistryStore, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms

    async def create(
        self,
        email: str,
        authority: Authority,
        *,
        customer_id: str | None = None,
        first_name: str | None = None,
        last_name: str | None = None,
        phone: str | None = None,
        additional_info: dict[str, Any] | None = None,
        password: str | None = None,
        demo: bool = False,
    ) -> User:
        """An account; without a password (its hash) it can do nothing until it is activated."""
        if await self._store.count("user") >= limits.USERS:
            raise InvalidEntity(f"There are {limits.USERS} users, which is the limit")
        if (authority == "CUSTOMER_USER") != (customer_id is not None):
            raise InvalidEntity("A customer's user, and nobody else, should have a customer!")
        await self._check_customer(customer_id)
        user = User(
            id=str(uuid.uuid1()),
            email=_checked_email(email),
            authority=authority,
            customer_id=customer_id,
            first_name=_checked_text("first name", first_name),
            last_name=_checked_text("last name", last_name),
            phone=_checked_text("phone", phone),
            additional_info=checked_info(additional_info),
            password=password,
            demo=demo,
            created_ms=self._now_ms(),
        )
        return await self._saved(user, expected=0)

    async def update(
        self,
        user_id: str,
        *,
        email: str,
        first_name: str | None,
        last_name: str | None,
        phone: str | None,
        additional_info: dict[str, Any] | None,
        version: int | None = None,
    ) -> User:
        """Overwrite what may be edited; ``version`` not None must be the present one."""
        entity, user = await self._stored(user_id)
        check_version(version, user.version)
        changed = msgspec.structs.replace(
            user,
            email=_checked_email(email),
            first_name=_checked_text("first name", first_name),
            last_name=_checked_text("last name", last_name),
            phone=_checked_text("phone", phone),
            additional_info=checked_info(additional_info),
            version=user.version + 1,
        )
        return await self._saved(changed, expected=entity.version)

    async def set_password(self, user_id: str, password: str, *, generation: int | None) -> User:
        """Another password (its hash); tokens made before are dead.

        ``generation`` is that of the password it replaces, Conflict if that is gone; None: any.
        """
        entity, user = await self._stored(user_id)
        if generation is not None and user.generation != generation:
            raise Conflict("the password has been changed meanwhile")
        changed = msgspec.structs.replace(
            user, password=password, generation=user.generation + 1, demo=False
        )
        return await self._saved(changed, expected=entity.version)

    async def end_sessions(self, user_id: str) -> None:
        """Every token of this user is dead."""
        entity, user = await self._stored(user_id)
        ended = msgspec.structs.replace(user, generation=user.generation + 1)
        await self._saved(ended, expected=entity.version)

    async def delete(self, user_id: str) -> None:
        """Delete an account."""
        entity, _user = await self._stored(user_id)
        await self._store.commit(
            Write(kind="user", id=user_id, expected=entity.version, value=None, change="user")
        )

    async def get(self, user_id: str) -> User:
        """An account by id; NotFound."""
        return (await self._stored(user_id))[1]

    async def by_email(self, email: str) -> User | None:
        """An account by its email, in whatever case."""
        owner = await self._store.find(_email_key(email)) if encodable(email) else None
        if owner is None:
            return None
        entity = await self._store.get("user", owner[1])
        user = None if entity is None else _decoder.decode(entity.value)
        return user if user is not None and _email_key(user.email) == _email_key(email) else None

    async def all(self) -> list[User]:
        """Every account, in id order; there are at most limits.USERS."""
        found: list[User] = []
        after = ""
        while rows := await self._store.scan("user", after, limits.REST_SCAN_ROWS):
            found += [_decoder.decode(row.value) for row in rows]
            after = rows[-1].id
            await asyncio.sleep(0)
        return found

    async def _check_customer(self, customer_id: str | None) -> None:
        if customer_id is not None and await self._store.get("customer", customer_id) is None:
            raise InvalidEntity("The user's customer does not exist!")

    async def _stored(self, user_id: str) -> tuple[Entity, User]:
        entity = await self._store.get("user", user_id)
        if entity is None:
            raise NotFound(f"User with id [{user_id}] is not found")
        return entity, _decoder.decode(entity.value)

    async def _saved(self, user: User, *, expected: int) -> User:
        key = _email_key(user.email)
        write = Write(
            kind="user",
            id=user.id,
            expected=expected,
            value=msgspec.msgpack.encode(user),
            unique=(key,),
            change="user",
        )
        try:
            await self._store.commit(write)
        except Conflict as error:
            owner = await self._store.find(key)
            if owner is not None and owner[1] != user.id:
                raise UniqueConflict(
                    f"User with email '{user.email}' already present in database!"
                ) from error
            raise
        return user
