"""Peer bytes and values as text that cannot break a log line or a terminal."""

from typing import Any, Final

from tbfast import limits

HIDDEN: Final = "[hidden]"

# Fields that would name a secret: their values are never written, whoever passes them.
_SECRETS: Final = frozenset((
    "access_token", "authorization", "cookie", "credentials", "credentials_id", "key_material",
    "passphrase", "password", "payload", "private_key", "psk", "secret", "token",
))  # fmt: skip
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - set(b'\\"')
_BYTES: Final = tuple(chr(b) if b in _PLAIN else f"\\x{b:02x}" for b in range(256))


def escape_peer(
    data: bytes | bytearray | memoryview | str, limit: int = limits.LOG_PEER_BYTES
) -> str:
    r"""The first limit bytes of peer data in printable ASCII, others as \xNN; cut: the full length.

    Backslash and double quote are escaped too, so the text is unambiguous (hostile-input 1, I8).
    """
    head = data[:limit]
    if isinstance(head, str):
        head = head.encode("utf-8", "surrogatepass")[:limit]
    shown = "".join([_BYTES[byte] for byte in bytes(head)])
    if len(data) <= limit:
        return shown
    return f"{shown}... ({len(data)} {'characters' if isinstance(data, str) else 'bytes'})"


def printable(text: str) -> str:
    r"""The text on one line: whatever is not printable (also line ends, escapes) as \uNNNN."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else _escaped(c) for c in text])


def plain_field(name: str, value: Any) -> str | int | float | bool | None:
    """A field's value as JSON can hold it: secrets hidden, bytes escaped, objects as text."""
    if name in _SECRETS:
        return HIDDEN
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return escape_peer(value)
    text = value if isinstance(value, str) else str(value)
    return text[: limits.LOG_LINE_BYTES]


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
