"""Reading requests: ids, query parameters and bounded JSON bodies; refusals are 400 code 31."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Literal, TypeVar

import msgspec
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from tbfast import limits
from tbfast.control.registry import DeviceQuery, Naming, SortProperty
from tbfast.control.rest.errors import BAD_REQUEST, RestError, bad_request
from tbfast.control.rest.shapes import NULL_UUID, EntityType, Reference
from tbfast.model.device import Device

T = TypeVar("T")
_INT64_DIGITS = 20
_FIELD_BYTES = 4096  # of a form's part that is no file
_PIECE_BYTES = 16_384


def entity_id(text: str) -> str:
    """A UUID in its canonical spelling."""
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise bad_request(f"Invalid UUID string: {text[:64]}") from error


def referred(reference: Reference | None) -> str | None:
    """The id of a reference in a body; the null UUID is none, as is nothing."""
    found = None if reference is None else entity_id(reference.id)
    return None if found == NULL_UUID else found


def path_id(request: Request, name: str = "id") -> str:
    """The id in the path."""
    return entity_id(request.path_params[name])


def integer(request: Request, name: str, default: int | None = None, *, least: int = 0) -> int:
    """An integer parameter; required when there is no default."""
    text = request.query_params.get(name)
    if not text:
        if default is None:
            raise bad_request(f"Required request parameter '{name}' is not present")
        return default
    try:
        value = int(text) if len(text) <= _INT64_DIGITS else None
    except ValueError:
        value = None
    if value is None or value < least or value >= 1 << 63:
        raise bad_request(f"'{name}' must be an integer of at least {least}")
    return value


def flag(request: Request, name: str, default: bool = False) -> bool:
    """A boolean parameter."""
    text = request.query_params.get(name, str(default)).lower()
    if text not in ("true", "false"):
        raise bad_request(f"'{name}' must be true or false")
    return text == "true"


def descending(request: Request, name: str, default: str) -> bool:
    """An ASC or DESC parameter."""
    text = request.query_params.get(name) or default
    if text.upper() not in ("ASC", "DESC"):
        raise bad_request(f"'{name}' must be ASC or DESC")
    return text.upper() == "DESC"


def choice(request: Request, name: str, choices: Any, default: T) -> T:
    """A parameter that is one of the words of a Literal."""
    text = request.query_params.get(name)
    if not text:
        return default
    try:
        chosen: T = msgspec.convert(text, choices)
    except msgspec.ValidationError as error:
        raise bad_request(f"Unsupported {name}: {text[:64]}") from error
    return chosen


def text(request: Request, name: str) -> str:
    """A parameter that must be there."""
    found: str | None = request.query_params.get(name)
    if found is None:
        raise bad_request(f"Required request parameter '{name}' is not present")
    return found


def keys(request: Request) -> list[str] | None:
    """``keys=a,b`` or ``key=a&key=b`` without repetitions; None when neither is there."""
    names = [name for name in request.query_params.get("keys", "").split(",") if name]
    names += [name for name in request.query_params.getlist("key") if name]
    return list(dict.fromkeys(names)) or None


def entity_type(text: str) -> EntityType:
    """A type of entities that ThingsBoard knows."""
    found: EntityType = word(text, EntityType)
    return found


def word(text: str, words: Any) -> Any:
    """One of the words of a Literal."""
    try:
        return msgspec.convert(text, words)
    except msgspec.ValidationError as error:
        raise bad_request(f"Unsupported value: {text[:64]}") from error


def ids(request: Request, name: str) -> list[str]:
    """Ids as ``name=a,b``, without repetitions; the parameter must be there."""
    words = text(request, name).split(",")
    return list(dict.fromkeys(entity_id(word.strip()) for word in words if word.strip()))


def naming(request: Request) -> Naming:
    """What to do with a name that is taken (REST spec 3)."""
    return Naming(
        policy=choice(request, "nameConflictPolicy", Literal["FAIL", "UNIQUIFY"], "FAIL"),
        separator=request.query_params.get("uniquifySeparator", "_"),
        strategy=choice(request, "uniquifyStrategy", Literal["RANDOM", "INCREMENTAL"], "RANDOM"),
    )


def device_query(
    request: Request,
    customer_id: str | None = None,
    ranks: Mapping[str, Callable[[Device], int]] = {},
) -> DeviceQuery:
    """Paging and filters of a device list (REST spec 1.2, 3).

    ranks: what it can be sorted by beside what the registry knows.
    """
    rank = ranks.get(request.query_params.get("sortProperty", ""))
    profile = request.query_params.get("deviceProfileId")
    return DeviceQuery(
        page=integer(request, "page"),
        page_size=integer(request, "pageSize", least=1),
        text_search=request.query_params.get("textSearch", ""),
        type=request.query_params.get("type") or None,
        profile_id=entity_id(profile) if profile else None,
        customer_id=customer_id,
        sort_property="id" if rank else _sort_property(request),
        rank=rank,
        descending=descending(request, "sortOrder", "ASC"),
    )


def _sort_property(request: Request) -> SortProperty:
    text = request.query_params.get("sortProperty") or "id"
    try:
        known: SortProperty = msgspec.convert(text, SortProperty)
    except msgspec.ValidationError as error:
        raise bad_request(f"Unsupported sortProperty: {text[:64]}") from error
    return known


async def body(request: Request, type_: type[T], *, strict: bool = True) -> T:
    """The JSON body, read up to the limit and checked against a type."""
    return parsed(await raw_body(request), type_, strict=strict)


def parsed(raw: bytes, type_: type[T], *, strict: bool = True) -> T:
    """A JSON body checked against a type; not strict: numbers and booleans may be texts."""
    try:
        raw.decode()  # the decoder does not look into raw members
        return msgspec.json.decode(raw, type=type_, strict=strict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"Invalid request body: {error}") from error


async def raw_body(request: Request) -> bytes:
    """The body as it came, read up to the limit."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > limits.REST_BODY_BYTES:
        raise _too_long()
    parts = bytearray()
    try:
        async for chunk in request.stream():
            if len(parts) + len(chunk) > limits.REST_BODY_BYTES:
                raise _too_long()
            parts += chunk
    except ClientDisconnect as error:
        raise bad_request("The body was cut short") from error
    return bytes(parts)


async def form(request: Request) -> FormData:
    """A multipart body, read up to the limit: few parts, and no more memory than a JSON body."""
    raw = await raw_body(request)
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise bad_request("The body should be multipart/form-data")

    async def pieces() -> AsyncGenerator[bytes, None]:
        # The parser makes an object of every line break in a piece, and never waits by itself.
        for start in range(0, len(raw), _PIECE_BYTES):
            yield raw[start : start + _PIECE_BYTES]
            await asyncio.sleep(0)

    parser = MultiPartParser(
        request.headers, pieces(), max_files=1, max_fields=16, max_part_size=_FIELD_BYTES
    )
    parser.spool_max_size = limits.REST_BODY_BYTES  # in memory: nothing is written to /tmp
    try:
        return await parser.parse()
    except (MultiPartException, UnicodeError, LookupError) as error:
        raise bad_request(f"Invalid form: {error}") from error


def _too_long() -> RestError:
    return RestError(413, BAD_REQUEST, f"The body is longer than {limits.REST_BODY_BYTES} bytes")
