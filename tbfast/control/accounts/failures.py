"""How often a login may fail, per user and per address; time is an argument."""

from collections import OrderedDict

from tbfast import limits


class Failures:
    """Each name has a number of failures in a row, then one more every LOGIN_FAILURE_MS.

    An attempt is charged before its password is looked at, so that many at once count as many, and
    given back when it was right. Bound: LOGIN_FAILURES_TABLE names, the one charged longest ago
    goes first.
    """

    def __init__(self, table: int = limits.LOGIN_FAILURES_TABLE) -> None:
        self._table = table
        # name -> time at which all its failures will be forgotten
        self._until_ms: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until_ms)

    def charge(self, name: str, allowed: int, now_ms: int) -> int:
        """0 if the attempt may go on, else ms after which the next one may."""
        until = max(self._until_ms.get(name, 0), now_ms) + limits.LOGIN_FAILURE_MS
        wait_ms = until - now_ms - allowed * limits.LOGIN_FAILURE_MS
        if wait_ms > 0:
            return wait_ms
        self._until_ms[name] = until
        self._until_ms.move_to_end(name)
        self._forget(now_ms)
        return 0

    def give_back(self, name: str) -> None:
        """The attempt that was charged is not a failure."""
        if name in self._until_ms:
            self._until_ms[name] -= limits.LOGIN_FAILURE_MS

    def _forget(self, now_ms: int) -> None:
        while self._until_ms:
            name, until = next(iter(self._until_ms.items()))
            if until > now_ms and len(self._until_ms) <= self._table:
                return
            del self._until_ms[name]
