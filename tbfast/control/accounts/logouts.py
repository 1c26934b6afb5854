"""Sessions that ended before their tokens expired; a restart does not bring them back."""

from typing import Final

from tbfast import limits
from tbfast.store.registry import RegistryStore, Write

_PREFIX: Final = "logout:"  # ids of kind "node"


class Logouts:
    """Bound: LOGGED_OUT_SESSIONS; `full` says that no further one can be remembered."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store
        self._expires: dict[str, int] = {}  # session -> Unix second its last token dies

    async def load(self) -> None:
        """Read what an earlier run remembered."""
        after = _PREFIX
        while rows := await self._store.scan("node", after, limits.REST_SCAN_ROWS):
            for row in rows:
                if not row.id.startswith(_PREFIX):
                    return
                self._expires[row.id[len(_PREFIX) :]] = int(row.value)
            after = rows[-1].id

    def __contains__(self, session: str) -> bool:
        return session in self._expires

    async def full(self, now_s: int) -> bool:
        """Whether there is no room; forgets what has expired."""
        if len(self._expires) < limits.LOGGED_OUT_SESSIONS:
            return False
        for session in [s for s, expires in self._expires.items() if expires <= now_s]:
            del self._expires[session]
            await self._store.commit(
                Write(kind="node", id=_PREFIX + session, expected=1, value=None, change="node")
            )
        return len(self._expires) >= limits.LOGGED_OUT_SESSIONS

    async def add(self, session: str, expires_s: int) -> None:
        """Ends a session; returns when that is on disk."""
        if session in self._expires:
            return
        self._expires[session] = expires_s
        value = b"%d" % expires_s
        await self._store.commit(
            Write(kind="node", id=_PREFIX + session, expected=0, value=value, change="node")
        )
