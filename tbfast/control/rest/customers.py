"""Customers, and devices that are given to them, over REST (REST spec 3, 13.1)."""

from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.registry import CustomerDraft, Registry
from tbfast.control.rest import params, shapes
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.callers import caller_of, refused
from tbfast.control.rest.endpoints import PAGING, Endpoint, Query
from tbfast.control.rest.errors import ITEM_NOT_FOUND, RestError, bad_request
from tbfast.control.rest.paging import page_of
from tbfast.model.customer import Customer


class CustomerInput(msgspec.Struct, frozen=True, rename="camel"):
    """Body of POST /api/customer; other members are ignored."""

    title: str
    id: shapes.Reference | None = None
    country: str | None = None
    state: str | None = None
    city: str | None = None
    address: str | None = None
    address2: str | None = None
    zip: str | None = None
    phone: str | None = None
    email: str | None = None
    additional_info: dict[str, Any] | None = None
    version: int | None = None


class CustomerBody(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A customer (REST spec 13.1)."""

    id: shapes.EntityId
    created_time: int
    tenant_id: shapes.EntityId
    title: str
    name: str
    country: str | None
    state: str | None
    city: str | None
    address: str | None
    address2: str | None
    zip: str | None
    phone: str | None
    email: str | None
    additional_info: dict[str, Any] | None
    external_id: None = None
    version: int


_OWN: Final = ("title", "country", "state", "city", "address", "address2", "zip", "phone", "email")


class CustomerRoutes:
    """Endpoints on top of the registry's customers."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._customers = registry.customers

    def endpoints(self) -> list[Endpoint]:
        """Paths in the order they must be tried."""
        customer, device = "/api/customer", shapes.DeviceBody
        return [
            Endpoint(
                "POST", customer, self.save, "tenant", body=CustomerInput, answer=CustomerBody
            ),
            Endpoint(
                "GET", "/api/customers", self.list, "tenant",
                answer=shapes.Page[CustomerBody], query=PAGING,
            ),
            Endpoint(
                "GET", "/api/tenant/customers", self.by_title, "tenant",
                answer=CustomerBody, query=(Query(name="customerTitle", required=True),),
            ),
            Endpoint(
                "POST", customer + "/public/device/{device}", self.publish, "tenant", answer=device
            ),
            Endpoint(
                "POST", customer + "/{id}/device/{device}", self.assign, "tenant", answer=device
            ),
            Endpoint(
                "DELETE", customer + "/device/{device}", self.unassign, "tenant", answer=device
            ),
            Endpoint("GET", customer + "/{id}", self.get, "user", answer=CustomerBody),
            Endpoint("DELETE", customer + "/{id}", self.delete, "tenant"),
        ]  # fmt: skip

    async def save(self, request: Request) -> Response:
        """POST /api/customer: create, or update when the body has an id."""
        given = await params.body(request, CustomerInput)
        draft = CustomerDraft(
            additional_info=given.additional_info, **{name: getattr(given, name) for name in _OWN}
        )
        customer_id = None if given.id is None else params.entity_id(given.id.id)
        return json_answer(
            self._body(await self._customers.save(draft, customer_id, given.version))
        )

    async def get(self, request: Request) -> Response:
        """GET /api/customer/{id}: its own for a customer's user."""
        customer_id = params.path_id(request)
        if not caller_of(request).of_customer(customer_id):
            raise refused()
        return json_answer(self._body(await self._customers.get(customer_id)))

    async def list(self, request: Request) -> Response:
        """GET /api/customers: a page."""
        found = await self._customers.all()
        return page_of(request, found, self._body, text=lambda c: c.title, sort=_SORT_KEYS)

    async def by_title(self, request: Request) -> Response:
        """GET /api/tenant/customers?customerTitle=X: one customer."""
        title = params.text(request, "customerTitle")
        customer = await self._customers.by_title(title)
        if customer is None:
            raise RestError(404, ITEM_NOT_FOUND, f"Customer with title [{title}] is not found")
        return json_answer(self._body(customer))

    async def delete(self, request: Request) -> Response:
        """DELETE /api/customer/{id}: its devices are nobody's from then on."""
        await self._registry.delete_customer(params.path_id(request))
        return Response()

    async def assign(self, request: Request) -> Response:
        """POST /api/customer/{id}/device/{device}."""
        return await self._assigned(request, params.path_id(request))

    async def publish(self, request: Request) -> Response:
        """POST /api/customer/public/device/{device}: everybody may see it."""
        device_id = params.path_id(request, "device")
        await self._registry.device(device_id)
        return await self._assigned(request, (await self._customers.public()).id)

    async def unassign(self, request: Request) -> Response:
        """DELETE /api/customer/device/{device}: it is nobody's."""
        device = await self._registry.device(params.path_id(request, "device"))
        if device.customer_id is None:
            raise bad_request("Device isn't assigned to any customer!")
        return await self._assigned(request, None)

    async def _assigned(self, request: Request, customer_id: str | None) -> Response:
        if customer_id is not None:
            await self._customers.get(customer_id)
        device_id = params.path_id(request, "device")
        device = await self._registry.assign_device(device_id, customer_id)
        return json_answer(shapes.device_body(device, self._registry.tenant_id))

    def _body(self, customer: Customer) -> CustomerBody:
        return CustomerBody(
            id=shapes.EntityId("CUSTOMER", customer.id),
            created_time=customer.created_ms,
            tenant_id=shapes.EntityId("TENANT", self._registry.tenant_id),
            name=customer.title,
            additional_info=customer.additional_info,
            version=customer.version,
            **{name: getattr(customer, name) for name in _OWN},
        )


_SORT_KEYS: Final = {
    "title": lambda customer: customer.title.casefold(),
    "name": lambda customer: customer.title.casefold(),
    "email": lambda customer: (customer.email or "").casefold(),
    "country": lambda customer: (customer.country or "").casefold(),
    "city": lambda customer: (customer.city or "").casefold(),
    "createdTime": lambda customer: customer.created_ms,
}
