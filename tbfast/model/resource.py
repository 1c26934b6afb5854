"""Files that are kept for the transports (REST spec 12)."""

from typing import Final, Literal

import msgspec

from tbfast.model.lwm2m import ObjectModel

ResourceType = Literal["LWM2M_MODEL"]

RESOURCE_KEY_INDEX: Final = "resource-key:"  # + type : key


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """An object definition file with what it says; ``key`` is unique for its type."""

    id: str
    title: str
    type: ResourceType = "LWM2M_MODEL"
    key: str
    file_name: str
    data: bytes
    model: ObjectModel
    created_ms: int
    version: int = 1
