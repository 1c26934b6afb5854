"""Who is being pointed at at this moment, so that nothing points at what is being deleted.

The store changes one entity at a time. Whoever writes a reference holds its target while it does;
whoever deletes a target needs it alone, and looks at the stored references after that.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator

from tbfast.control.rules import InvalidEntity
from tbfast.errors import NotFound


class References:
    """Holds of one event loop; as many as writes are under way."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._alone: set[str] = set()

    @contextlib.contextmanager
    def held(self, *ids: str | None) -> Iterator[None]:
        """These entities stay as they are; NotFound when one is just being deleted or changed."""
        wanted = [id for id in ids if id is not None]
        for id in wanted:
            if id in self._alone:
                raise NotFound(f"the entity with id [{id}] is being changed or deleted")
        self._held.update(wanted)
        try:
            yield
        finally:
            self._held.subtract(wanted)
            for id in wanted:
                if not self._held[id]:
                    del self._held[id]

    @contextlib.contextmanager
    def alone(self, id: str) -> Iterator[None]:
        """Nobody begins to point at this entity; InvalidEntity when somebody is doing so."""
        if id in self._held or id in self._alone:
            raise InvalidEntity(f"the entity with id [{id}] is in use; try again")
        self._alone.add(id)
        try:
            yield
        finally:
            self._alone.discard(id)
