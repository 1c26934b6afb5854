"""Addresses that presented wrong credentials too often (MQTT spec 8.4)."""

from tbfast import limits


class _Attempts:
    __slots__ = ("count", "last_ms")

    def __init__(self) -> None:
        self.count = 0
        self.last_ms = 0


class AddressBlocks:
    """Failures by address, least recent first; past the bound the least recent is forgotten.

    Times are monotonic milliseconds.  An address is blocked from its `max_wrong`-th failure until
    `block_ms` after its last one; a success in between forgets them.
    """

    def __init__(
        self,
        max_wrong: int,
        block_ms: int,
        max_addresses: int = limits.BLOCKED_ADDRESSES,
    ) -> None:
        self._max_wrong = max_wrong
        self._block_ms = block_ms
        self._max_addresses = max_addresses
        self._attempts: dict[bytes, _Attempts] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    def blocked(self, address: bytes, now: int) -> bool:
        """Whether it may not connect now."""
        found = self._attempts.get(address)
        return (
            found is not None
            and found.count >= self._max_wrong
            and now - found.last_ms < self._block_ms
        )

    def failed(self, address: bytes, now: int) -> bool:
        """Wrong credentials from there; whether this one blocks the address."""
        found = self._attempts.pop(address, None)
        if found is None or now - found.last_ms >= self._block_ms:
            found = _Attempts()
        found.count += 1
        found.last_ms = now
        self._attempts[address] = found
        if len(self._attempts) > self._max_addresses:
            del self._attempts[next(iter(self._attempts))]
        return found.count == self._max_wrong

    def succeeded(self, address: bytes) -> None:
        """A login from there."""
        self._attempts.pop(address, None)

    def purge(self, now: int) -> None:
        """Forgets addresses that have been idle for `block_ms`."""
        while self._attempts:
            address, oldest = next(iter(self._attempts.items()))
            if now - oldest.last_ms < self._block_ms:
                return
            del self._attempts[address]
