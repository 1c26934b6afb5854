"""Customers in the registry (REST spec 13.1)."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tbfast.control.registry.references import References
from tbfast.control.rules import (
    InvalidEntity,
    UniqueConflict,
    check_version,
    checked,
    checked_info,
    encodable,
    new_id,
)
from tbfast.errors import Conflict, NotFound
from tbfast.model.customer import CUSTOMER_TITLE_INDEX, PUBLIC_TITLE, Customer
from tbfast.store.registry import Entity, RegistryStore, Write

_decoder = msgspec.msgpack.Decoder(Customer)


class CustomerDraft(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller may set."""

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


class Customers:
    """All methods belong to one event loop; writes return when they are on disk."""

    def __init__(
        self, store: RegistryStore, references: References, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._references = references
        self._now_ms = now_ms

    async def get(self, customer_id: str) -> Customer:
        """A customer by id."""
        return (await self._stored(customer_id))[1]

    async def by_title(self, title: str) -> Customer | None:
        """A customer by its exact title."""
        key = CUSTOMER_TITLE_INDEX + title
        owner = await self._store.find(key) if encodable(title) else None
        return None if owner is None else await self.get(owner[1])

    async def all(self) -> list[Customer]:
        """All customers, in id order."""
        return [_decoder.decode(e.value) async for e in self._store.entities("customer")]

    def peek(self, customer_id: str | None) -> Customer | None:
        """A customer as last written; None where there is none."""
        entity = self._store.peek("customer", customer_id) if customer_id else None
        return None if entity is None else _decoder.decode(entity.value)

    async def save(
        self, draft: CustomerDraft, customer_id: str | None = None, version: int | None = None
    ) -> Customer:
        """Create a customer, or overwrite the one with this id and, unless None, this version."""
        if customer_id is None:
            present = Customer(id=new_id(), title="", created_ms=self._now_ms(), version=0)
            return await self._commit(_drawn(draft, present), expected=0)
        entity, present = await self._stored(customer_id)
        check_version(version, present.version)
        return await self._commit(_drawn(draft, present), expected=entity.version)

    async def public(self) -> Customer:
        """The customer whose devices everybody may see; made when there is none."""
        found = await self.by_title(PUBLIC_TITLE)
        if found is None:
            draft = CustomerDraft(title=PUBLIC_TITLE, additional_info={"isPublic": True})
            try:
                return await self.save(draft)
            except UniqueConflict:  # another caller made it first
                found = await self.by_title(PUBLIC_TITLE)
        if found is None or not found.is_public:
            raise InvalidEntity(f"The customer {PUBLIC_TITLE!r} is not public; rename it")
        return found

    async def delete(self, customer_id: str, release: Callable[[str], Awaitable[object]]) -> None:
        """Delete a customer after ``release(customer_id)`` took everything away from it."""
        await self.get(customer_id)
        with self._references.alone(customer_id):
            await release(customer_id)
            entity, _customer = await self._stored(customer_id)
            await self._store.commit(
                Write(
                    kind="customer",
                    id=customer_id,
                    expected=entity.version,
                    value=None,
                    change="customer",
                )
            )

    async def _commit(self, customer: Customer, *, expected: int) -> Customer:
        key = CUSTOMER_TITLE_INDEX + customer.title
        try:
            await self._store.commit(
                Write(
                    kind="customer",
                    id=customer.id,
                    expected=expected,
                    value=msgspec.msgpack.encode(customer),
                    unique=(key,),
                    change="customer",
                )
            )
        except Conflict as error:
            owner = await self._store.find(key)
            if owner is not None and owner[1] != customer.id:
                raise UniqueConflict("Customer with such title already exists!") from error
            raise
        return customer

    async def _stored(self, customer_id: str) -> tuple[Entity, Customer]:
        entity = await self._store.get("customer", customer_id)
        if entity is None:
            raise NotFound(f"Customer with id [{customer_id}] is not found")
        return entity, _decoder.decode(entity.value)


def _drawn(draft: CustomerDraft, present: Customer) -> Customer:
    fields = msgspec.structs.asdict(draft)
    for name, text in fields.items():
        if isinstance(text, str) and text:
            checked(f"customer {name}", text)
    fields["title"] = checked("customer title", draft.title)
    fields["additional_info"] = checked_info(draft.additional_info)
    if draft.email and "@" not in draft.email:
        raise InvalidEntity(f"Invalid email address format '{draft.email[:64]}'!")
    if present.is_public and not (
        draft.title == present.title and (draft.additional_info or {}).get("isPublic") is True
    ):
        raise InvalidEntity("The public customer keeps its title and stays public!")
    return msgspec.structs.replace(present, **fields, version=present.version + 1)
