"""JSON objects that carry requests: their members as strict JSON text (MQTT spec 3.1)."""

import re
from typing import Final

import msgspec

from tbfast import limits
from tbfast._ext.batch import Batch
from tbfast._ext.series import rows
from tbfast._ext.tbjson import append_attributes
from tbfast.errors import PeerError

Payload = bytes | memoryview

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")
_strict: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def members(payload: Payload) -> dict[str, bytes]:
    """Members of a JSON object in the devices' dialect; the last of equal names wins.

    What is no UTF-8 becomes U+FFFD, as everywhere.  Raises PeerError (0x99) for anything else.
    """
    try:
        str(payload, "utf-8")  # the decoder does not look into raw members
        found = _strict.decode(payload)
        return {name: bytes(text) for name, text in found.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return typed_members(payload, type_cast=False)


def typed_members(payload: Payload, *, type_cast: bool) -> dict[str, bytes]:
    """Members typed as telemetry is (MQTT spec 3.3); null ones are dropped.

    Raises PeerError (0x99) for anything but an object, or a value that is refused.
    """
    batch = Batch(limits.JSON_MAX_KEYS)
    append_attributes(batch, 0, payload, 0, type_cast=type_cast)
    if batch.dropped_records:
        raise PeerError("a name is blank, too long or holds markup", code=0x99)
    if not batch.records:
        return {}
    block = batch.to_block(0, 0, 1, 0, 1)
    return {name: text for _, _, _, name, _, text in rows(block, {})}


def text_of(value: bytes | None) -> str | None:
    """A scalar member as text: numbers and booleans as they are written.

    None for a missing or null member; PeerError for an object or array.
    """
    if value is None or value == b"null":
        return None
    if value[:1] == b'"':
        try:
            decoded: str = msgspec.json.decode(value, type=str)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise PeerError("a member is no valid text", code=0x99) from error
        return decoded
    if value[:1] in (b"{", b"["):
        raise PeerError("a member must be a scalar", code=0x99)
    return value.decode()


def integer_of(value: bytes | None) -> int | None:
    """An integer member, or its text; None when missing; PeerError for anything else."""
    text = text_of(value)
    if text is None:
        return None
    if not _INTEGER.fullmatch(text) or not -(1 << 63) <= int(text) < 1 << 63:
        raise PeerError("a member must be an integer of 64 bits", code=0x99)
    return int(text)
