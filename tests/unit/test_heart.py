"""The controller's heartbeat: not asked for while something waits for the disk."""

import asyncio
import time

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast._ext.metrics import Slot
from tbfast.control.heart import Heart

NEAR_S = 5.0  # a busy machine


def ahead_s(slot: Slot) -> float:
    return slot.get(words.HEALTH_HEARTBEAT_MS) / 1000 - time.monotonic()


def test_beats_while_the_loop_turns_and_says_when_it_may_not() -> None:
    async def live() -> None:
        slot = Slot()
        heart = Heart(slot)
        beating = asyncio.create_task(heart.run())
        await asyncio.sleep(0)
        assert -NEAR_S < ahead_s(slot) <= 0
        with heart.waits():
            late_s = limits.DISK_PATIENCE_MS / 1000
            assert late_s - NEAR_S < ahead_s(slot) <= late_s
            with heart.waits():  # of another thread
                pass
            again = asyncio.create_task(heart.run())
            await asyncio.sleep(0)
            assert late_s - NEAR_S < ahead_s(slot) <= late_s
            again.cancel()
        assert -NEAR_S < ahead_s(slot) <= 0
        beating.cancel()

    asyncio.run(live())
