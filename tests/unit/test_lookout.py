"""When the sealer looks at the head next."""

import pytest

from tbfast.control.sealer import CHECK_S, SOON_S, Lookout

FULL = 1_000


def pauses(*looks: tuple[float, int]) -> list[float]:
    lookout = Lookout(FULL)
    return [lookout.pause_s(now_s, held) for now_s, held in looks]


def test_a_head_that_fills_slowly_is_looked_at_now_and_then() -> None:
    assert pauses((5.0, 0), (5.25, 10), (5.5, 20)) == [CHECK_S] * 3


def test_one_that_will_be_full_before_that_is_met_in_time() -> None:
    assert pauses((5.0, 0), (5.25, 800))[1] == pytest.approx(0.25 * 200 / 800)


def test_not_sooner_than_it_can_be_sealed() -> None:
    assert pauses((5.0, 0), (5.25, 999), (5.26, 2_000))[1:] == [SOON_S, SOON_S]


def test_an_idle_head_and_the_one_after_a_full_one() -> None:
    assert pauses((5.0, 700), (5.25, 700), (5.5, 40)) == [CHECK_S] * 3
