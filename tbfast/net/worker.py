"""What every listener needs of the worker it runs in."""

from collections.abc import Callable
from typing import Protocol

from tbfast.model.operations import Operation, ReadChunk, Result


class Commits(Protocol):
    """The commit path: tbfast.worker.commit.Committer.

    stalled: rows wait for the disk for so long that newcomers are sent away (promises 8).
    """

    @property
    def stalled(self) -> bool: ...
    def turn_ended(self) -> None: ...
    def commit(self) -> None: ...


class Operations(Protocol):
    """What devices ask of the controller: tbfast.worker.operations.Operations."""

    def ask(
        self,
        device: int,
        operation: Operation | ReadChunk,
        done: Callable[[Result], None],
        *,
        timeout_s: float | None = None,
    ) -> int: ...
    def drop(self, request: int) -> None: ...
