"""Long answers share a bound: who waits is served in turn or told to come again."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from tbfast import limits
from tbfast.control.rest.long_answers import PART_BYTES, LongAnswer, LongAnswers
from tbfast.errors import ResourceError


async def sent(answer: LongAnswer, fail_at: int = -1) -> list[MutableMapping[str, Any]]:
    messages: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        if len(messages) == fail_at:
            raise OSError("gone")
        messages.append(message)

    async def receive() -> MutableMapping[str, Any]:
        raise AssertionError("nothing is read")

    await answer({"type": "http"}, receive, send)
    return messages


@pytest.mark.parametrize("size", [0, 2, PART_BYTES, PART_BYTES + 1, 5 * PART_BYTES])
def test_parts(size: int) -> None:
    text = bytes(n % 251 for n in range(size))
    ends: list[bool] = []
    start, *parts = asyncio.run(sent(LongAnswer(text, lambda: ends.append(True))))
    assert (b"content-length", str(size).encode()) in start["headers"]
    assert (b"content-type", b"application/json") in start["headers"]
    assert b"".join(bytes(part["body"]) for part in parts) == text
    assert [part["more_body"] for part in parts] == [True] * (len(parts) - 1) + [False]
    assert max(len(part["body"]) for part in parts) <= PART_BYTES
    assert ends == [True]


def test_a_share_is_free_when_the_reader_is_gone() -> None:
    async def run() -> None:
        answers = LongAnswers(100)
        share = await answers.take(100)
        with pytest.raises(OSError, match="gone"):
            await sent(LongAnswer(b"x" * 3 * PART_BYTES, share.free), fail_at=2)
        await answers.take(100)

    asyncio.run(run())


def test_in_turn() -> None:
    async def run() -> list[str]:
        answers = LongAnswers(100)
        order: list[str] = []

        async def take(name: str, nbytes: int) -> Any:
            share = await answers.take(nbytes)
            order.append(name)
            return share

        first = await take("first", 60)
        large = asyncio.ensure_future(take("large", 80))
        small = asyncio.ensure_future(take("small", 30))  # would fit, but is behind
        await take("nothing set aside", 0)
        await asyncio.sleep(0)
        assert order == ["first", "nothing set aside"]
        first.shrink(10)
        (await large).shrink(5)
        await small
        return order

    assert asyncio.run(run()) == ["first", "nothing set aside", "large", "small"]


def test_who_waits_too_long_or_leaves_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REST_ANSWER_WAIT_MS", 10)

    async def run() -> None:
        answers = LongAnswers(100)
        share = await answers.take(100)
        with pytest.raises(ResourceError, match="try again"):
            await answers.take(1)
        monkeypatch.setattr(limits, "REST_ANSWER_WAIT_MS", 60_000)
        left = asyncio.ensure_future(answers.take(50))
        granted = asyncio.ensure_future(answers.take(50))
        behind = asyncio.ensure_future(answers.take(60))
        await asyncio.sleep(0)
        left.cancel()
        share.free()
        granted.cancel()  # at the moment its turn comes
        await asyncio.wait([left, granted])
        assert left.cancelled()
        assert granted.cancelled()
        (await behind).free()
        await answers.take(100)

    asyncio.run(run())


def test_a_failed_answer_frees_its_share() -> None:
    async def run() -> None:
        answers = LongAnswers(100)
        share = await answers.take(100)
        with pytest.raises(ValueError, match="no"), share.unless_failed():
            raise ValueError("no")
        await answers.take(100)

    asyncio.run(run())
