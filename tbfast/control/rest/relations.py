"""Relations over REST (REST spec 10)."""

from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tbfast.control.registry import Registry
from tbfast.control.rest import params, shapes
from tbfast.control.rest.answers import json_answer
from tbfast.control.rest.callers import caller_of, refused
from tbfast.control.rest.endpoints import Endpoint, Query
from tbfast.control.rest.errors import bad_request
from tbfast.errors import NotFound
from tbfast.model.relation import Relation, RelationGroup


class RelationBody(msgspec.Struct, frozen=True, rename={"from_": "from"}):
    """A relation as clients write and read it (REST spec 10)."""

    from_: shapes.EntityId
    to: shapes.EntityId
    type: str
    type_group: RelationGroup | None = msgspec.field(default="COMMON", name="typeGroup")
    version: int | None = None
    additional_info: dict[str, Any] | None = msgspec.field(default=None, name="additionalInfo")


_GROUP: Final = (Query(name="relationTypeGroup", type=RelationGroup),)
_ONE: Final = (
    Query(name="fromId", required=True),
    Query(name="fromType", required=True),
    Query(name="relationType", required=True),
    *_GROUP,
    Query(name="toId", required=True),
    Query(name="toType", required=True),
)


class RelationRoutes:
    """Endpoints on top of the registry's relations."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._relations = registry.relations

    def endpoints(self) -> list[Endpoint]:
        """Paths in the order they must be tried."""
        many = list[RelationBody]
        ends = tuple(Query(name=name) for name in ("fromId", "fromType", "toId", "toType"))
        found: list[Endpoint] = [
            Endpoint(
                "GET", "/api/relations", self.list, "user",
                answer=many, query=(*ends, *_GROUP, Query(name="relationType")),
            )
        ]  # fmt: skip
        for end, handler in (("from", self.list_from), ("to", self.list_to)):
            path = f"/api/relations/{end}/{{type}}/{{id}}"
            found.append(Endpoint("GET", path, handler, "user", answer=many, query=_GROUP))
            path += "/{relation}"
            found.append(Endpoint("GET", path, handler, "user", answer=many, query=_GROUP))
        for path in ("/api/v2/relation", "/api/relation"):
            found.append(
                Endpoint("POST", path, self.save, "tenant", body=RelationBody, answer=RelationBody)
            )
            found.append(
                Endpoint("DELETE", path, self.delete, "tenant", answer=RelationBody, query=_ONE)
            )
        found.append(
            Endpoint("GET", "/api/relation", self.get, "user", answer=RelationBody, query=_ONE)
        )
        return found

    async def list(self, request: Request) -> Response:
        """GET /api/relations?fromId&fromType or ?toId&toType."""
        type = request.query_params.get("relationType") or None
        if "fromId" in request.query_params:
            return await self._listed(request, "from", *_end(request, "from"), type)
        return await self._listed(request, "to", *_end(request, "to"), type)

    async def list_from(self, request: Request) -> Response:
        """GET /api/relations/from/{type}/{id}[/{relation}]."""
        return await self._listed(request, "from", *_path_end(request), _path_type(request))

    async def list_to(self, request: Request) -> Response:
        """GET /api/relations/to/{type}/{id}[/{relation}]."""
        return await self._listed(request, "to", *_path_end(request), _path_type(request))

    async def save(self, request: Request) -> Response:
        """POST /api/relation, /api/v2/relation: create or overwrite."""
        given = await params.body(request, RelationBody)
        saved = await self._relations.save(
            Relation(
                from_type=given.from_.entity_type,
                from_id=params.entity_id(given.from_.id),
                to_type=given.to.entity_type,
                to_id=params.entity_id(given.to.id),
                type=given.type,
                group=given.type_group or "COMMON",
                additional_info=given.additional_info,
                version=given.version or 0,
            )
        )
        return json_answer(_body(saved))

    async def get(self, request: Request) -> Response:
        """GET /api/relation?fromId&fromType&relationType&toId&toType."""
        wanted = _wanted(request)
        for type_, id in ((wanted.from_type, wanted.from_id), (wanted.to_type, wanted.to_id)):
            await self._check(request, type_, id)
        return json_answer(_body(await self._relations.get(wanted)))

    async def delete(self, request: Request) -> Response:
        """DELETE of the same; the answer is what was deleted."""
        wanted = await self._relations.get(_wanted(request))
        await self._relations.delete(wanted)
        return json_answer(_body(wanted))

    async def _listed(
        self, request: Request, end: str, type_: str, id: str, type: str | None
    ) -> Response:
        await self._check(request, type_, id)
        group = _group(request)
        of = self._relations.of_origin if end == "from" else self._relations.of_target
        return json_answer([_body(r) for r in await of(type_, id, group=group, type=type)])

    async def _check(self, request: Request, type_: str, id: str) -> None:
        """A customer's user sees the relations of its own devices only."""
        caller = caller_of(request)
        if caller.authority != "CUSTOMER_USER":
            return
        if type_ == "CUSTOMER" and caller.of_customer(id):
            return
        try:
            if type_ == "DEVICE" and caller.sees(await self._registry.device(id)):
                return
        except NotFound:
            pass
        raise refused()


def _end(request: Request, end: str) -> tuple[str, str]:
    type_, id = (request.query_params.get(end + part) for part in ("Type", "Id"))
    if not type_ or not id:
        raise bad_request(f"Required request parameters '{end}Id' and '{end}Type' are not present")
    return params.entity_type(type_), params.entity_id(id)


def _path_end(request: Request) -> tuple[str, str]:
    return params.entity_type(request.path_params["type"]), params.path_id(request)


def _path_type(request: Request) -> str | None:
    found: str | None = request.path_params.get("relation")
    return found


def _group(request: Request) -> RelationGroup:
    return params.choice(request, "relationTypeGroup", RelationGroup, "COMMON")


def _wanted(request: Request) -> Relation:
    type_ = request.query_params.get("relationType")
    if not type_:
        raise bad_request("Required request parameter 'relationType' is not present")
    (from_type, from_id), (to_type, to_id) = _end(request, "from"), _end(request, "to")
    return Relation(
        from_type=from_type,
        from_id=from_id,
        to_type=to_type,
        to_id=to_id,
        type=type_,
        group=_group(request),
    )


def _body(relation: Relation) -> RelationBody:
    return RelationBody(
        from_=shapes.EntityId(params.entity_type(relation.from_type), relation.from_id),
        to=shapes.EntityId(params.entity_type(relation.to_type), relation.to_id),
        type=relation.type,
        type_group=relation.group,
        version=relation.version,
        additional_info=relation.additional_info,
    )
