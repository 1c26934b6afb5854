"""What a Protobuf schema says, resolved: messages, their fields, enums (MQTT spec 7.2)."""

from enum import IntEnum
from typing import Final

import msgspec

from tbfast.errors import PeerError


class SchemaError(PeerError):
    """A schema that is refused; the message names the line and what to change."""

    def __init__(self, message: str, *, line: int = 0) -> None:
        super().__init__(f"line {line}: {message}" if line else message, code=0x99)
        self.line = line


class Kind(IntEnum):
    """Type of a field, numbered as in descriptor.proto."""

    DOUBLE = 1
    FLOAT = 2
    INT64 = 3
    UINT64 = 4
    INT32 = 5
    FIXED64 = 6
    FIXED32 = 7
    BOOL = 8
    STRING = 9
    MESSAGE = 11
    BYTES = 12
    UINT32 = 13
    ENUM = 14
    SFIXED32 = 15
    SFIXED64 = 16
    SINT32 = 17
    SINT64 = 18


SCALARS: Final = {kind.name.lower(): kind for kind in Kind if kind not in (Kind.MESSAGE, Kind.ENUM)}
BLOBS: Final = frozenset({Kind.STRING, Kind.BYTES, Kind.MESSAGE})


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """`type`: index of the message or enum; `oneof`: 1, 2, .. within the message, 0 = none."""

    name: str
    number: int
    kind: Kind
    type: int = 0
    repeated: bool = False
    presence: bool = False  # set and unset differ, also for a scalar
    oneof: int = 0

    @property
    def json_name(self) -> str:
        """lowerCamelCase, as protoc derives it (MQTT spec 7.3)."""
        out, upper = [], False
        for char in self.name:
            if char == "_":
                upper = True
            else:
                out.append(char.upper() if upper else char)
                upper = False
        return "".join(out)


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Fields by number; `entry`: one pair of a map, fields key = 1 and value = 2."""

    name: str
    fields: tuple[Field, ...]
    entry: bool = False


class Enumeration(msgspec.Struct, frozen=True, kw_only=True):
    """Names by number."""

    name: str
    values: tuple[tuple[int, str], ...]


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """Types of one file; `root` is the index of the message that payloads are."""

    messages: tuple[Message, ...]
    enums: tuple[Enumeration, ...] = ()
    root: int = 0

    @property
    def root_message(self) -> Message:
        return self.messages[self.root]

    def rooted(self, name: str) -> "Schema":
        """The same types with another root, by its full name."""
        names = [message.name for message in self.messages]
        return msgspec.structs.replace(self, root=names.index(name))
