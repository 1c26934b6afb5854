"""Passwords: which are accepted, and their scrypt hashes.

A hash is one text, "scrypt$N$r$p$salt$hash" with base64 salt and hash, so that hashes with other
parameters stay valid when these change.
"""

import asyncio
import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from tbfast import limits
from tbfast.control.rules import encodable
from tbfast.errors import LocalError, ResourceError

# 16 MiB; the cost OWASP's password storage page asks for.
_CHOSEN: Final = (1 << 14, 8, 5)
# For a password with 96 random bits, or one that is public: stretching it protects nothing.
_CHEAP: Final = (1 << 10, 8, 1)
_HASH_BYTES: Final = 32
_SALT_BYTES: Final = 16

T = TypeVar("T")


class WeakPassword(LocalError):
    """A new password breaks a rule; the message says which."""


def check_password(password: str, *, least: int = limits.PASSWORD_MIN_CHARS) -> str:
    """The password itself; WeakPassword where it may not be chosen."""
    if not least <= len(password) <= limits.PASSWORD_MAX_CHARS or not encodable(password):
        raise WeakPassword(
            f"A password must have {least} to {limits.PASSWORD_MAX_CHARS} Unicode characters"
        )
    return password


def random_password() -> str:
    """96 random bits in letters a terminal and a shell leave alone."""
    return secrets.token_urlsafe(12)


def _derived(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        password.encode(), salt=salt, n=n, r=r, p=p, maxmem=256 * n * r, dklen=_HASH_BYTES
    )


def _text(cost: tuple[int, int, int], salt: bytes, derived: bytes) -> str:
    texts = (b64encode(salt).decode(), b64encode(derived).decode())
    return "$".join(["scrypt", *map(str, cost), *texts])


def _hashed(password: str, cost: tuple[int, int, int]) -> str:
    salt = secrets.token_bytes(_SALT_BYTES)
    return _text(cost, salt, _derived(password, salt, *cost))


def cheaply_hashed(password: str) -> str:
    """The text to store for a password that is random, or no secret."""
    return _hashed(password, _CHEAP)


def _matches(password: str, stored: str) -> bool:
    _scheme, n, r, p, salt, expected = stored.split("$")
    found = _derived(password, b64decode(salt), int(n), int(r), int(p))
    return hmac.compare_digest(found, b64decode(expected))


class Passwords:
    """Hashes in threads, PASSWORD_HASHES at once; with PASSWORD_HASHES_WAITING more in the queue
    further calls get ResourceError."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(limits.PASSWORD_HASHES, "password")
        self._running = 0
        salt, derived = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_HASH_BYTES)
        self._nobodys = _text(_CHOSEN, salt, derived)

    async def hashed(self, password: str) -> str:
        """The text to store."""
        return await self._in_thread(_hashed, password, _CHOSEN)

    async def match(self, password: str, stored: str | None) -> bool:
        """Whether the password is the stored one; None takes as long, and is nobody's."""
        if not encodable(password) or len(password) > limits.PASSWORD_MAX_CHARS:
            password, stored = "", None
        same = await self._in_thread(_matches, password, stored or self._nobodys)
        return same and stored is not None

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        if self._running >= limits.PASSWORD_HASHES + limits.PASSWORD_HASHES_WAITING:
            raise ResourceError("Too many logins at once; try again in a moment")
        self._running += 1
        done = asyncio.get_running_loop().run_in_executor(self._threads, work, *args)
        # A caller that has gone away does not free its place: the thread still works for it.
        done.add_done_callback(self._finished)
        return await asyncio.shield(done)

    def _finished(self, _done: object) -> None:
        self._running -= 1
