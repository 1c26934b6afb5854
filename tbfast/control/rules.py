"""What a name, a token and a version must look like (REST spec 1.1, 3 and 4)."""

import re
import secrets
import string
import time
import uuid
from typing import Any, Final, TypeVar

import msgspec

from tbfast import limits
from tbfast.errors import Conflict, LocalError

T = TypeVar("T")

TOKEN_CHARS: Final = 20
_TOKEN_ALPHABET: Final = string.ascii_letters + string.digits
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]").search
_GREGORIAN_TICKS: Final = 0x01B21DD213814000  # 100 ns units from 1582-10-15 to 1970-01-01


class InvalidEntity(LocalError):
    """A device, label or token breaks a rule; the message says which."""


class UniqueConflict(Conflict):
    """A name or token belongs to another device (a stale version is a plain Conflict)."""


def random_token() -> str:
    """Twenty random alphanumeric characters (REST spec 3, rule 4)."""
    return "".join(secrets.choice(_TOKEN_ALPHABET) for _ in range(TOKEN_CHARS))


def new_id() -> str:
    """A version 1 UUID of this moment, as ThingsBoard's are (REST spec 1.1).

    Sequence and node are random, so that it is unique without anything remembered; `uuid.uuid1`
    asks a lock file for that, ten system calls.
    """
    ticks = time.time_ns() // 100 + _GREGORIAN_TICKS
    high = (ticks & 0xFFFFFFFF) << 32 | (ticks >> 32 & 0xFFFF) << 16 | 0x1000 | ticks >> 48
    # Variant bits, and the bit that says the node is no hardware address (RFC 9562 6.10).
    low = secrets.randbits(64) & ~(0b11 << 62) | 1 << 63 | 1 << 40
    return str(uuid.UUID(int=high << 64 | low))


def check_version(given: int | None, present: int) -> None:
    """Raise Conflict unless the caller saw the present version, or does not care (None)."""
    if given is not None and given != present:
        raise Conflict(f"version {given} is stale, the present one is {present}; read it again")


def encodable(text: str) -> bool:
    """Whether the text is Unicode that UTF-8 can carry (no lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked(what: str, text: str) -> str:
    """A name that can be stored, shown on a terminal and sent by a device (REST spec 4)."""
    if not text.strip():
        raise InvalidEntity(f"The {what} should be specified!")
    if len(text) > limits.REGISTRY_NAME_CHARS:
        raise InvalidEntity(f"The {what} is longer than {limits.REGISTRY_NAME_CHARS} characters")
    if not encodable(text) or _CONTROL(text):
        raise InvalidEntity(f"The {what} may hold no control characters")
    return text


def checked_label(label: str | None) -> str | None:
    """A label is optional; one that is given obeys the rules of names."""
    return label if not label else checked("device label", label)


def checked_json(what: str, value: T, size: int, depth: int) -> T:
    """Free JSON is bounded in encoded bytes and in nesting; integers have 64 bits."""
    level: list[Any] = [value]
    for _ in range(depth):
        level = [child for node in level for child in _children(node)]
        if not level:
            break
    else:
        raise InvalidEntity(f"{what} is deeper than {depth} levels")
    try:
        encoded = len(msgspec.msgpack.encode(value))
    except OverflowError as error:
        raise InvalidEntity(f"{what} holds an integer of more than 64 bits") from error
    except UnicodeEncodeError as error:
        raise InvalidEntity(f"{what} holds text that is not Unicode") from error
    if encoded > size:
        raise InvalidEntity(f"{what} is longer than {size} bytes")
    return value


def checked_info(info: dict[str, Any] | None) -> dict[str, Any] | None:
    """additionalInfo, an object or nothing."""
    if info is None:
        return None
    return checked_json(
        "additionalInfo", info, limits.REGISTRY_INFO_BYTES, limits.REGISTRY_INFO_DEPTH
    )


def _children(node: Any) -> list[Any]:
    values = node.values() if isinstance(node, dict) else node
    return [value for value in values if isinstance(value, dict | list)]
