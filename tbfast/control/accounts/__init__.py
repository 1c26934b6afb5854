"""Accounts: who may use the management API, and how they prove it (REST spec 2, 13.2).

Nothing here knows HTTP. Refusals are `Denied`.
"""

import asyncio
import uuid
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from tbfast import limits
from tbfast.control.accounts.api_keys import ApiKeys
from tbfast.control.accounts.failures import Failures
from tbfast.control.accounts.installation import signing_key
from tbfast.control.accounts.logouts import Logouts
from tbfast.control.accounts.passwords import (
    Passwords,
    cheaply_hashed,
    check_password,
    random_password,
)
from tbfast.control.accounts.tokens import (
    ACTIVATION_SCOPE,
    ISSUER,
    REFRESH_SCOPE,
    BadToken,
    Claims,
    Signer,
)
from tbfast.control.accounts.users import Users
from tbfast.control.rules import InvalidEntity
from tbfast.errors import NotFound, PeerError, ResourceError, TbfastError
from tbfast.model.account import Authority, User
from tbfast.model.device import Change
from tbfast.obs.log import get_logger
from tbfast.store.registry import RegistryStore

log = get_logger("tbfast.accounts")

ADMIN_EMAIL: Final = "admin@tbfast.local"
DEMO_ACCOUNTS: Final[tuple[tuple[str, Authority, str], ...]] = (
    ("tenant@thingsboard.org", "TENANT_ADMIN", "tenant"),
    ("sysadmin@thingsboard.org", "SYS_ADMIN", "sysadmin"),
)
NULL_UUID: Final = "13814000-1dd2-11b2-8080-808080808080"


class Denied(PeerError):
    """Not let in."""


class TokenExpired(Denied):
    """A token whose time is over, whose session or user is gone, or that was never ours."""


class KeyExpired(Denied):
    """An API key whose time is over."""


class TooManyFailures(ResourceError):
    """Not even looked at."""

    def __init__(self, wait_ms: int) -> None:
        self.wait_s = -(-wait_ms // 1000)
        super().__init__(f"Too many failed logins; try again in {self.wait_s} s")


class Pair(msgspec.Struct, frozen=True, rename="camel"):
    """What a login gives."""

    token: str
    refresh_token: str


class Visitor(NamedTuple):
    """Who was let in; ``session`` is empty for an API key."""

    user: User
    session: str
    public: bool


class _PublicInfo(msgspec.Struct, rename="camel"):
    is_public: bool = False


class _Customer(msgspec.Struct):
    additional_info: _PublicInfo | None = None


class Accounts:
    """All methods belong to one event loop; writes return when they are on disk."""

    def __init__(
        self,
        store: RegistryStore,
        signer: Signer,
        *,
        now_ms: Callable[[], int],
        demo: bool,
    ) -> None:
        """demo: whether accounts that everybody knows are let in."""
        self._store = store
        self._signer = signer
        self._now_ms = now_ms
        self._demo = demo
        self._passwords = Passwords()
        self._failures = Failures()
        self._logouts = Logouts(store)
        self._deleting: set[asyncio.Task[None]] = set()
        self.users = Users(store, now_ms)
        self.keys = ApiKeys(store, now_ms)

    @classmethod
    async def open(
        cls, store: RegistryStore, *, now_ms: Callable[[], int], demo: bool
    ) -> "Accounts":
        """The accounts of a registry; finishes deletes that a crash has cut short."""
        accounts = cls(store, Signer(await signing_key(store)), now_ms=now_ms, demo=demo)
        await accounts._logouts.load()
        for user in await accounts.users.all():
            if user.customer_id and await store.get("customer", user.customer_id) is None:
                await accounts.users.delete(user.id)
        ids = {user.id for user in await accounts.users.all()}
        for key in await accounts.keys.all():
            if key.user_id not in ids:
                await accounts.keys.delete(key.id)
        store.subscribe(accounts._registry_changed)
        return accounts

    def close(self) -> None:
        """Let go of threads and tasks; the store is not ours."""
        for task in self._deleting:
            task.cancel()
        self._passwords.close()

    async def first_accounts(self) -> str | None:
        """Makes the accounts of a new installation; the password that nobody knows yet, if any."""
        if self._demo:
            for email, authority, password in DEMO_ACCOUNTS:
                if await self.users.by_email(email) is None:
                    stored = cheaply_hashed(password)
                    await self.users.create(email, authority, password=stored, demo=True)
            return None
        if any(not user.demo for user in await self.users.all()):
            return None
        password = random_password()
        stored = cheaply_hashed(password)
        await self.users.create(ADMIN_EMAIL, "TENANT_ADMIN", password=stored)
        return password

    # Logins

    async def login(self, email: str, password: str, address: str | None) -> Pair:
        """Tokens for an email and its password; Denied, TooManyFailures or ResourceError."""
        user = await self.users.by_email(email)
        if not await self._proved(email, user, password, address) or user is None:
            raise Denied("Invalid username or password")
        return self.pair(self._admitted(user))

    async def login_public(self, customer_id: str) -> Pair:
        """Tokens of nobody in particular, who sees what belongs to a public customer."""
        return self.pair(await self._public_user(customer_id), public=True)

    async def refresh(self, token: str) -> Pair:
        """Another pair for a refresh token; the session stays the same."""
        visitor = await self._visitor(token, refresh=True)
        return self.pair(visitor.user, session=visitor.session, public=visitor.public)

    async def logout(self, user_id: str, session: str) -> None:
        """Every token of a session is dead; with no room to remember it, all of that user's are."""
        now_s = self._now_ms() // 1000
        if await self._logouts.full(now_s):
            await self.users.end_sessions(user_id)
        else:
            await self._logouts.add(session, now_s + limits.REFRESH_TOKEN_S)

    def pair(self, user: User, *, session: str | None = None, public: bool = False) -> Pair:
        """Tokens of a user; a new session unless one is given."""
        now_s = self._now_ms() // 1000
        session = session or str(uuid.uuid4())
        refresh = Claims(
            sub=user.email,
            user_id=user.id,
            scopes=(REFRESH_SCOPE,),
            session_id=session,
            iss=ISSUER,
            iat=now_s,
            exp=now_s + limits.REFRESH_TOKEN_S,
            generation=user.generation,
            jti=str(uuid.uuid4()),
            is_public=public,
        )
        access = msgspec.structs.replace(
            refresh,
            scopes=(user.authority,),
            exp=now_s + limits.ACCESS_TOKEN_S,
            jti=None,
            first_name=user.first_name,
            last_name=user.last_name,
            enabled=True,
            tenant_id=NULL_UUID if user.authority == "SYS_ADMIN" else self._store.tenant_id,
            customer_id=user.customer_id or NULL_UUID,
        )
        return Pair(self._signer.sign(access), self._signer.sign(refresh))

    # Requests

    async def by_token(self, token: str) -> Visitor:
        """Whose access token this is; Denied."""
        return await self._visitor(token, refresh=False)

    async def by_api_key(self, value: str) -> Visitor:
        """Whose API key this is; Denied."""
        known = len(value) <= limits.AUTH_TOKEN_BYTES
        key = await self.keys.by_value(value) if known else None
        if key is None or not key.enabled:
            raise Denied("Authentication failed")
        if key.expired(self._now_ms()):
            raise KeyExpired("API key is expired")
        try:
            user = await self.users.get(key.user_id)
        except NotFound as error:
            raise Denied("Authentication failed") from error
        return Visitor(self._admitted(user), "", False)

    # Passwords

    async def change_password(self, user_id: str, current: str, new: str) -> Pair:
        """New tokens; all older ones of this user die. InvalidEntity, WeakPassword."""
        user = await self.users.get(user_id)
        check_password(new)
        if not await self._proved(user.email, user, current, None):
            raise InvalidEntity("Current password doesn't match!")
        if current == new:
            raise InvalidEntity("New password should be different from existing!")
        stored = await self._passwords.hashed(new)
        return self.pair(await self.users.set_password(user_id, stored, generation=user.generation))

    async def set_password(self, user_id: str, new: str) -> User:
        """A password chosen by somebody else; all tokens of this user die."""
        stored = await self._passwords.hashed(check_password(new))
        return await self.users.set_password(user_id, stored, generation=None)

    def activation_token(self, user: User) -> str:
        """What lets somebody choose the first password of an account, once and for a day."""
        if user.password is not None:
            raise InvalidEntity("User is already activated!")
        now_s = self._now_ms() // 1000
        return self._signer.sign(
            Claims(
                sub=user.email,
                user_id=user.id,
                scopes=(ACTIVATION_SCOPE,),
                iss=ISSUER,
                iat=now_s,
                exp=now_s + limits.ACTIVATION_TOKEN_S,
                generation=user.generation,
            )
        )

    async def activate(self, token: str, password: str) -> Pair:
        """The first password of an account."""
        check_password(password)
        try:
            claims = self._signer.claims(token, self._now_ms() // 1000)
            user = await self.users.get(claims.user_id)
        except (BadToken, NotFound) as error:
            raise InvalidEntity("Activation token is not valid or has expired!") from error
        fresh = user.password is None and user.generation == claims.generation
        if claims.scopes != (ACTIVATION_SCOPE,) or not fresh:
            raise InvalidEntity("Activation token is not valid or has expired!")
        stored = await self._passwords.hashed(password)
        return self.pair(
            await self.users.set_password(user.id, stored, generation=claims.generation)
        )

    async def delete_user(self, user_id: str) -> None:
        """The account first: without it its keys and tokens let nobody in."""
        await self.users.delete(user_id)
        for key in await self.keys.of_user(user_id):
            await self.keys.delete(key.id)

    async def _proved(
        self, email: str, user: User | None, password: str, address: str | None
    ) -> bool:
        """Whether the password is the user's; nobody's is looked at for as long."""
        names = [("user " + email.casefold()[:255], limits.LOGIN_FAILURES_PER_USER)]
        if address is not None:
            names.append(("address " + address, limits.LOGIN_FAILURES_PER_ADDRESS))
        charged: list[str] = []
        for name, allowed in names:
            wait_ms = self._failures.charge(name, allowed, self._now_ms())
            if wait_ms:
                self._give_back(charged)
                raise TooManyFailures(wait_ms)
            charged.append(name)
        try:
            right = await self._passwords.match(password, user.password if user else None)
        except ResourceError:
            self._give_back(charged)
            raise
        if right:
            self._give_back(charged)
        return right

    def _registry_changed(self, change: Change) -> None:
        if change.kind == "customer" and change.op == "deleted":
            task = asyncio.get_running_loop().create_task(self._delete_users_of(change.id))
            self._deleting.add(task)
            task.add_done_callback(self._deleting.discard)

    async def _delete_users_of(self, customer_id: str) -> None:
        """What is left by an error goes at the next start; without a customer they see nothing."""
        try:
            for user in await self.users.all():
                if user.customer_id == customer_id:
                    await self.delete_user(user.id)
        except TbfastError as error:
            log.error("users of a deleted customer are left", error=str(error))

    def _give_back(self, names: list[str]) -> None:
        for name in names:
            self._failures.give_back(name)

    async def _visitor(self, token: str, *, refresh: bool) -> Visitor:
        try:
            claims = self._signer.claims(token, self._now_ms() // 1000)
        except BadToken as error:
            raise TokenExpired("Token has expired") from error
        (scope,) = claims.scopes
        if (scope == REFRESH_SCOPE) is not refresh or scope == ACTIVATION_SCOPE:
            raise Denied("Invalid token scope")
        if claims.is_public:
            user = await self._public_user(claims.sub)
            return Visitor(user, claims.session_id, True)
        try:
            user = await self.users.get(claims.user_id)
        except NotFound as error:
            raise TokenExpired("Token is outdated") from error
        if user.generation != claims.generation or claims.session_id in self._logouts:
            raise TokenExpired("Token is outdated")
        return Visitor(self._admitted(user), claims.session_id, False)

    def _admitted(self, user: User) -> User:
        """The user, unless nobody may be that one now."""
        if user.demo and not self._demo:
            raise Denied("This account is known to everybody; it works only with --demo")
        return user

    async def _public_user(self, customer_id: str) -> User:
        entity = await self._store.get("customer", customer_id)
        if entity is not None:
            info = msgspec.msgpack.decode(entity.value, type=_Customer).additional_info
            if info is not None and info.is_public:
                return User(
                    id=NULL_UUID,
                    email=customer_id,
                    authority="CUSTOMER_USER",
                    customer_id=customer_id,
                    created_ms=0,
                )
        raise Denied("Authentication failed")
