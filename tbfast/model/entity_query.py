"""Entity queries as clients write them (REST spec 11)."""

from typing import Any, Literal

import msgspec

KeyType = Literal[
    "ATTRIBUTE",
    "CLIENT_ATTRIBUTE",
    "SHARED_ATTRIBUTE",
    "SERVER_ATTRIBUTE",
    "TIME_SERIES",
    "ENTITY_FIELD",
]
Operation = Literal["AND", "OR"]


class Reference(msgspec.Struct, frozen=True, rename="camel"):
    """An entity; only devices can be asked for."""

    id: str
    entity_type: Literal["DEVICE"]


class SingleEntity(msgspec.Struct, frozen=True, tag="singleEntity", rename="camel"):
    """One device."""

    single_entity: Reference


class EntityList(msgspec.Struct, frozen=True, tag="entityList", rename="camel"):
    """These devices."""

    entity_type: Literal["DEVICE"]
    entity_list: list[str]


class EntityName(msgspec.Struct, frozen=True, tag="entityName", rename="camel"):
    """Devices whose names begin with a text; ``%`` in it stands for any characters."""

    entity_type: Literal["DEVICE"]
    entity_name_filter: str


class EntityType(msgspec.Struct, frozen=True, tag="entityType", rename="camel"):
    """All devices."""

    entity_type: Literal["DEVICE"]


class DeviceType(msgspec.Struct, frozen=True, tag="deviceType", rename="camel"):
    """Devices of these profiles, by the profiles' names."""

    device_types: list[str] | None = None
    device_type: str | None = None
    device_name_filter: str | None = None


Filter = SingleEntity | EntityList | EntityName | EntityType | DeviceType


class Key(msgspec.Struct, frozen=True):
    """Something that has a value for each device."""

    type: KeyType
    key: str


class Operand(msgspec.Struct, frozen=True, rename="camel"):
    """What is compared with; the user's value counts before the default."""

    default_value: Any = None
    user_value: Any = None

    @property
    def value(self) -> Any:
        """The one that counts."""
        return self.default_value if self.user_value is None else self.user_value


class NumericPredicate(msgspec.Struct, frozen=True, tag="NUMERIC"):
    """A comparison of numbers."""

    operation: Literal["EQUAL", "NOT_EQUAL", "GREATER", "LESS", "GREATER_OR_EQUAL", "LESS_OR_EQUAL"]
    value: Operand


class StringPredicate(msgspec.Struct, frozen=True, tag="STRING", rename="camel"):
    """A comparison of texts; IN and NOT_IN take a list with commas."""

    operation: Literal[
        "EQUAL", "NOT_EQUAL", "STARTS_WITH", "ENDS_WITH", "CONTAINS", "NOT_CONTAINS", "IN", "NOT_IN"
    ]
    value: Operand
    ignore_case: bool = False


class BooleanPredicate(msgspec.Struct, frozen=True, tag="BOOLEAN"):
    """A comparison with true or false."""

    operation: Literal["EQUAL", "NOT_EQUAL"]
    value: Operand


class ComplexPredicate(msgspec.Struct, frozen=True, tag="COMPLEX"):
    """Several comparisons of one value."""

    operation: Operation
    predicates: list["NumericPredicate | StringPredicate | BooleanPredicate | ComplexPredicate"]


Predicate = NumericPredicate | StringPredicate | BooleanPredicate | ComplexPredicate


class KeyFilter(msgspec.Struct, frozen=True, rename="camel"):
    """A condition on one key's value."""

    key: Key
    predicate: Predicate
    value_type: Literal["STRING", "NUMERIC", "BOOLEAN", "DATE_TIME"] | None = None


class SortOrder(msgspec.Struct, frozen=True):
    """By which value pages are ordered."""

    key: Key
    direction: Literal["ASC", "DESC"] = "ASC"


class PageLink(msgspec.Struct, frozen=True, rename="camel"):
    """Which page."""

    page_size: int
    page: int = 0
    text_search: str | None = None
    sort_order: SortOrder | None = None


class CountQuery(msgspec.Struct, frozen=True, rename="camel"):
    """Devices that pass the filter and all (or, with OR, any) of the conditions."""

    entity_filter: Filter
    key_filters: list[KeyFilter] | None = None
    key_filters_operation: Operation | None = None


class DataQuery(CountQuery, frozen=True, rename="camel", kw_only=True):
    """One page of them, with values."""

    page_link: PageLink
    entity_fields: list[Key] | None = None
    latest_values: list[Key] | None = None
