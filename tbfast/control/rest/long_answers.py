"""Answers of stored values that may be tens of megabytes: few at a time, sent in parts.

A reader who takes an answer slowly holds its memory for as long; so there is a bound over all, and
who asks for more waits a moment and is then told to come again.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Generator
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tbfast import limits
from tbfast.errors import ResourceError

PART_BYTES: Final = 262_144  # of one write: what one read of a worker takes


class LongAnswers:
    """Bytes of answers that are being made or sent; all on the loop's thread."""

    def __init__(self, most_bytes: int = limits.REST_ANSWERS_BYTES) -> None:
        self._left = most_bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()  # bound: connections

    async def take(self, nbytes: int) -> "Share":
        """A share of the bound; ResourceError if others do not leave it in time."""
        if nbytes and (self._waiting or self._left < nbytes):
            await self._turn(nbytes)
        else:
            self._left -= nbytes
        return Share(self, nbytes)

    async def _turn(self, nbytes: int) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (nbytes, ready)
        self._waiting.append(place)
        try:
            async with asyncio.timeout(limits.REST_ANSWER_WAIT_MS / 1000):
                await ready
        except BaseException as error:
            if place in self._waiting:
                self._waiting.remove(place)
                self._wake()
            else:
                self.give(nbytes)
            if isinstance(error, TimeoutError):
                raise ResourceError(
                    "too many long answers are being sent; try again later"
                ) from error
            raise

    def give(self, nbytes: int) -> None:
        """A share, or a part of it, is free."""
        self._left += nbytes
        self._wake()

    def _wake(self) -> None:
        """In turn, so that a large one is not passed for ever."""
        while self._waiting and self._waiting[0][0] <= self._left:
            nbytes, ready = self._waiting.popleft()
            self._left -= nbytes
            if ready.cancelled():
                self._left += nbytes
            else:
                ready.set_result(None)


class Share:
    """What one answer may take; `shrink` once its length is known, `free` when it is sent."""

    def __init__(self, owner: LongAnswers, nbytes: int) -> None:
        self._owner = owner
        self._nbytes = nbytes

    def shrink(self, nbytes: int) -> None:
        """The answer has so many bytes."""
        self._owner.give(self._nbytes - nbytes)
        self._nbytes = nbytes

    def free(self) -> None:
        """The answer is gone; once is enough."""
        self.shrink(0)

    @contextlib.contextmanager
    def unless_failed(self) -> Generator[None, None, None]:
        """Frees the share if making the answer fails."""
        try:
            yield
        except BaseException:
            self.free()
            raise


class LongAnswer(Response):
    """JSON text, in parts that wait for the connection."""

    media_type = "application/json"

    def __init__(self, text: bytes, sent: Callable[[], None]) -> None:
        """sent: called when it has been handed over or the reader is gone."""
        super().__init__()
        self.headers["content-length"] = str(len(text))
        self._text = text
        self._sent = sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        text = memoryview(self._text)
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        try:
            await send(start)
            for at in range(0, max(len(text), 1), PART_BYTES):
                more = at + PART_BYTES < len(text)
                body = text[at : at + PART_BYTES]
                await send({"type": "http.response.body", "body": body, "more_body": more})
        finally:
            self._sent()
