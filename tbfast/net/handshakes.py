"""TLS handshakes under way: how many at a time, and who makes room for whom.

At the bound a peer whose address has far fewer of them than another gets in at once, the oldest of
the address that has most goes.  Where nobody has far more than others they wait: a fleet comes in
handshake by handshake, from one address or from thousands.  One that takes longer than
TLS_HANDSHAKE_PATIENCE_MS goes whenever somebody waits.
"""

from typing import Final

from tbfast import limits
from tbfast.net.strangers import Strangers

UNFAIR: Final = 8  # more than twice as many and so many more are far more


class Handshakes:
    """Bookkeeping only; unit: connections.  Times are monotonic milliseconds."""

    def __init__(
        self,
        most: int = limits.TLS_HANDSHAKES,
        patience_ms: int = limits.TLS_HANDSHAKE_PATIENCE_MS,
    ) -> None:
        self._most = most
        self._patience_ms = patience_ms
        self._strangers = Strangers(most)
        self._began: dict[int, tuple[bytes, int]] = {}

    def __len__(self) -> int:
        return len(self._began)

    def in_the_way(self, address: bytes, now: int) -> int | None:
        """Whom to close so that a handshake with this address can begin; None = nobody.

        Raises Full if it has to wait.
        """
        if len(self._began) < self._most:
            return None
        oldest = self._strangers.first_to_go()
        assert oldest is not None
        whose, began = self._began[oldest]
        held = self._strangers.held
        # With like shares peers would only replace each other, and nobody would ever finish.
        if held(whose) <= 2 * held(address) + UNFAIR and now - began < self._patience_ms:
            raise Full
        return oldest

    def begins(self, slot: int, address: bytes, now: int) -> None:
        """A handshake begins."""
        self._began[slot] = (address, now)
        self._strangers.add(slot, address)

    def ended(self, slot: int) -> None:
        """It is over, one way or another; unknown slots are ignored."""
        if self._began.pop(slot, None) is not None:
            self._strangers.remove(slot)


class Full(Exception):
    """The handshake has to wait."""
