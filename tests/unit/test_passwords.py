"""Password hashes, and what a password must look like."""

import asyncio
import base64
import hashlib

import pytest

from tbfast import limits
from tbfast.control.accounts.passwords import (
    Passwords,
    WeakPassword,
    cheaply_hashed,
    check_password,
    random_password,
)
from tbfast.errors import ResourceError


def with_passwords(work):
    async def run():
        passwords = Passwords()
        try:
            return await work(passwords)
        finally:
            passwords.close()

    return asyncio.run(run())


def test_hash_and_match() -> None:
    async def work(passwords: Passwords) -> None:
        first = await passwords.hashed("correct horse")
        assert first != await passwords.hashed("correct horse")  # salted
        assert "horse" not in first
        assert await passwords.match("correct horse", first)
        for wrong in ("correct hors", "", "Correct horse", "\ud800", "x" * 1_000_000):
            assert not await passwords.match(wrong, first)
        assert not await passwords.match("", None)

    with_passwords(work)


def test_hashes_with_other_parameters_stay_valid() -> None:
    salt = b"0123456789abcdef"
    derived = hashlib.scrypt(b"secret", salt=salt, n=1024, r=4, p=2, dklen=32)
    text = "$".join(["scrypt", "1024", "4", "2", *(
        base64.b64encode(part).decode() for part in (salt, derived)
    )])  # fmt: skip

    async def work(passwords: Passwords) -> None:
        assert await passwords.match("secret", text)
        assert not await passwords.match("Secret", text)

    with_passwords(work)


def test_the_loop_runs_on_and_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PASSWORD_HASHES_WAITING", 3)

    async def work(passwords: Passwords) -> None:
        many = limits.PASSWORD_HASHES + limits.PASSWORD_HASHES_WAITING
        calls = [asyncio.create_task(passwords.match("x", None)) for _ in range(many)]
        await asyncio.sleep(0)
        assert not any(call.done() for call in calls)  # the loop did not wait for them
        with pytest.raises(ResourceError):
            await passwords.match("x", None)
        for call in calls[1:3]:
            call.cancel()  # a caller that goes away does not make room: its hash is computed
        await asyncio.sleep(0)
        with pytest.raises(ResourceError):
            await passwords.match("x", None)
        await asyncio.gather(*calls, return_exceptions=True)
        assert await passwords.match("x", None) is False

    with_passwords(work)


@pytest.mark.parametrize("bad", ["", "short", "x" * 129, "\ud800" * 10])
def test_refused_passwords(bad: str) -> None:
    with pytest.raises(WeakPassword):
        check_password(bad)


def test_random_passwords() -> None:
    made = {random_password() for _ in range(100)}
    assert len(made) == 100
    assert all(check_password(password) == password for password in made)

    async def work(passwords: Passwords) -> None:
        for password in list(made)[:3]:
            stored = cheaply_hashed(password)
            assert await passwords.match(password, stored)
            assert not await passwords.match(password + "x", stored)

    with_passwords(work)
