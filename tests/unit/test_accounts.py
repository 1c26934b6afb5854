"""Accounts across openings of the registry: keys, first accounts, deletes cut short by a crash."""

import asyncio
from pathlib import Path

import pytest

from tbfast import limits
from tbfast.control.accounts import ADMIN_EMAIL, Accounts, Denied, TokenExpired
from tbfast.store.registry import RegistryStore, Write


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_760_000_000_000

    def __call__(self) -> int:
        return self.now_ms


def with_accounts(path: Path, work, *, demo: bool = False, clock: Clock | None = None):
    """One life of a server."""

    async def run():
        store = RegistryStore(path)
        try:
            accounts = await Accounts.open(store, now_ms=clock or Clock(), demo=demo)
            try:
                return await work(accounts, store)
            finally:
                accounts.close()
        finally:
            await store.close()

    return asyncio.run(run())


def test_the_first_start_and_the_next_ones(tmp_path: Path) -> None:
    async def first(accounts: Accounts, _store: RegistryStore):
        password = await accounts.first_accounts()
        assert password is not None
        pair = await accounts.login(ADMIN_EMAIL, password, "192.0.2.1")
        assert await accounts.first_accounts() is None
        return password, pair

    password, pair = with_accounts(tmp_path / "r", first)

    async def second(accounts: Accounts, _store: RegistryStore) -> None:
        assert await accounts.first_accounts() is None
        assert (await accounts.by_token(pair.token)).user.email == ADMIN_EMAIL
        await accounts.login(ADMIN_EMAIL, password, None)

    with_accounts(tmp_path / "r", second)

    async def elsewhere(accounts: Accounts, _store: RegistryStore) -> None:
        with pytest.raises(TokenExpired):  # every installation has a key of its own
            await accounts.by_token(pair.token)

    with_accounts(tmp_path / "other", elsewhere)


def test_deletes_that_a_crash_cut_short(tmp_path: Path) -> None:
    async def crashed(accounts: Accounts, store: RegistryStore):
        customer = Write(kind="customer", id="c", expected=0, value=b"\x80", change="customer")
        await store.commit(customer)
        user = await accounts.users.create("a@b.c", "CUSTOMER_USER", customer_id="c")
        kept = await accounts.users.create("k@b.c", "TENANT_ADMIN")
        gone = await accounts.users.create("g@b.c", "TENANT_ADMIN")
        values = [
            (await accounts.keys.create(u.id, "key", enabled=True, expires_ms=0))[1]
            for u in (user, kept, gone)
        ]
        await accounts.users.delete(gone.id)  # its key would be next
        await store.commit(
            Write(kind="customer", id="c", expected=1, value=None, change="customer")
        )
        return values

    values = with_accounts(tmp_path / "r", crashed)

    async def restarted(accounts: Accounts, _store: RegistryStore) -> None:
        assert [user.email for user in await accounts.users.all()] == ["k@b.c"]
        assert len(await accounts.keys.all()) == 1
        assert (await accounts.by_api_key(values[1])).user.email == "k@b.c"
        for value in (values[0], values[2]):
            with pytest.raises(Denied):
                await accounts.by_api_key(value)

    with_accounts(tmp_path / "r", restarted)


def test_logouts_are_forgotten_when_their_tokens_have_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOGGED_OUT_SESSIONS", 3)
    clock = Clock()

    async def work(accounts: Accounts, store: RegistryStore) -> None:
        user = await accounts.users.create("a@b.c", "TENANT_ADMIN")
        for number in range(3):
            await accounts.logout(user.id, f"s{number}")
        assert await store.count("node") == 4  # the signing key, and the sessions
        clock.now_ms += (limits.REFRESH_TOKEN_S + 1) * 1000
        pair = accounts.pair(user, session="s3")
        await accounts.logout(user.id, "s3")
        assert await store.count("node") == 2
        with pytest.raises(TokenExpired):
            await accounts.by_token(pair.token)
        other = accounts.pair(user)
        assert (await accounts.by_token(other.token)).user == user

    with_accounts(tmp_path / "r", work, clock=clock)

    async def restarted(accounts: Accounts, store: RegistryStore) -> None:
        (user,) = await accounts.users.all()
        with pytest.raises(TokenExpired):
            await accounts.by_token(accounts.pair(user, session="s3").token)

    with_accounts(tmp_path / "r", restarted, clock=clock)
