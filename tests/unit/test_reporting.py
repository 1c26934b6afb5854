"""Which activities of a device are reported, and when (MQTT spec 8.5)."""

import pytest

from tbfast.control.reporting import OVERLAP_MS, Reporting
from tbfast.model.activity import LOOK_MS, ReportingStrategy, look_ms


@pytest.mark.parametrize(
    ("strategy", "at_once", "at_the_end"),
    [
        ("ALL", [True, True, True], []),
        ("FIRST", [True, False, False], []),
        ("FIRST_AND_LAST", [True, False, False], [(7, 30)]),
    ],
)
def test_a_period(
    strategy: ReportingStrategy, at_once: list[bool], at_the_end: list[tuple[int, int]]
) -> None:
    reporting = Reporting(strategy)
    assert [reporting.due(7, at) for at in (10, 20, 30)] == at_once
    assert reporting.due(8, 15) is True  # each device has a first one
    assert [one for one in reporting.period_ended(40) if one[0] == 7] == at_the_end
    assert reporting.due(7, 40) is True


def test_what_looks_find_again_is_no_new_activity() -> None:
    reporting = Reporting("FIRST")
    assert [reporting.due(7, at) for at in (1_000, 1_200)] == [True, False]
    for now_ms in (1_500, 2_000, 2_500):  # periods shorter than looks reach back
        reporting.period_ended(now_ms)
        assert reporting.due(7, 1_200) is False
    assert reporting.due(7, 2_600) is True  # the first of this period


def test_nothing_is_kept_of_devices_that_went_silent() -> None:
    reporting = Reporting("FIRST_AND_LAST")
    reporting.due(7, 10)
    assert reporting.period_ended(20) == [(7, 10)]
    assert reporting.period_ended(20 + OVERLAP_MS) == []
    assert reporting._seen == {}


def test_a_clock_that_is_set_back_hides_activity_for_one_period_at_most() -> None:
    reporting = Reporting("FIRST")
    assert reporting.due(7, 3_600_000) is True
    reporting.period_ended(1_000)
    assert reporting.due(7, 1_100) is True


def test_how_often_activity_is_looked_for() -> None:
    assert look_ms("LAST", 60_000) == 60_000
    assert look_ms("ALL", 60_000) == look_ms("FIRST", 60_000) == LOOK_MS
    assert look_ms("FIRST_AND_LAST", 500) == 250
