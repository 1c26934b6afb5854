"""Connections that have not proved who they are: how many, what they hold, who goes first.

Whoever sends from one address competes with itself (hostile-input 2, N3): at a bound the oldest
connection of the address that holds the most is closed, so that a flood from one place leaves the
others in, and a whole fleet behind one address can still reconnect.
"""

from tbfast import limits


class _Address:
    """What one peer address holds; connections oldest first."""

    __slots__ = ("connections", "nbytes")

    def __init__(self) -> None:
        self.connections: dict[int, int] = {}  # slot -> bytes received
        self.nbytes = 0


class Strangers:
    """Bookkeeping only: `to_close` names connections, the caller closes and removes them.

    Unit: connections, and bytes received from them; what an unaccepted peer sent is kept in full.
    """

    def __init__(
        self,
        max_connections: int = limits.UNAUTHENTICATED_CONNECTIONS,
        max_bytes: int = limits.UNAUTHENTICATED_BYTES,
    ) -> None:
        self._max_connections = max_connections
        self._max_bytes = max_bytes
        self._nbytes = 0
        self._address_of: dict[int, bytes] = {}
        self._addresses: dict[bytes, _Address] = {}
        self._by_count: dict[int, dict[bytes, None]] = {}  # connections -> addresses with so many
        self._most = 0

    def __len__(self) -> int:
        return len(self._address_of)

    @property
    def nbytes(self) -> int:
        """Bytes received from all of them."""
        return self._nbytes

    def held(self, address: bytes) -> int:
        """Connections from there."""
        holder = self._addresses.get(address)
        return 0 if holder is None else len(holder.connections)

    def add(self, slot: int, address: bytes) -> None:
        """A connection was accepted."""
        holder = self._addresses.setdefault(address, _Address())
        holder.connections[slot] = 0
        self._address_of[slot] = address
        count = len(holder.connections)
        self._rank(address, count - 1, count)

    def received(self, slot: int, nbytes: int) -> None:
        """It sent something."""
        address = self._address_of.get(slot)
        if address is not None:
            holder = self._addresses[address]
            holder.connections[slot] += nbytes
            holder.nbytes += nbytes
            self._nbytes += nbytes

    def remove(self, slot: int) -> None:
        """It was let in or has gone; unknown slots are ignored."""
        address = self._address_of.pop(slot, None)
        if address is None:
            return
        holder = self._addresses[address]
        nbytes = holder.connections.pop(slot)
        holder.nbytes -= nbytes
        self._nbytes -= nbytes
        count = len(holder.connections)
        self._rank(address, count + 1, count)
        if count == 0:
            del self._addresses[address]

    def to_close(self) -> int | None:
        """Whom to close because a bound is exceeded; None while none is."""
        if len(self._address_of) > self._max_connections:
            return self.first_to_go()
        if self._nbytes > self._max_bytes:
            heaviest = max(self._addresses.values(), key=lambda holder: holder.nbytes)
            return next(iter(heaviest.connections))
        return None

    def first_to_go(self) -> int | None:
        """The oldest connection of the address that has most of them."""
        if not self._most:
            return None
        address = next(iter(self._by_count[self._most]))
        return next(iter(self._addresses[address].connections))

    def _rank(self, address: bytes, before: int, after: int) -> None:
        if before:
            level = self._by_count[before]
            del level[address]
            if not level:
                del self._by_count[before]
        if after:
            self._by_count.setdefault(after, {})[address] = None
        if after > self._most or self._most not in self._by_count:
            self._most = after  # counts move in steps of one: no other address is between
