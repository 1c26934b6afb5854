"""Failed logins: so many in a row, then one at a time; the table is bounded."""

from hypothesis import given
from hypothesis import strategies as st

from tbfast import limits
from tbfast.control.accounts.failures import Failures

STEP = limits.LOGIN_FAILURE_MS


def test_a_row_then_one_at_a_time() -> None:
    failures = Failures()
    assert [failures.charge("u", 3, 1000) for _ in range(3)] == [0, 0, 0]
    assert failures.charge("u", 3, 1000) == STEP
    assert failures.charge("u", 3, 1001) == STEP - 1
    assert failures.charge("other", 3, 1000) == 0
    assert failures.charge("u", 3, 1000 + STEP) == 0
    assert failures.charge("u", 3, 1000 + STEP) == STEP
    assert failures.charge("u", 3, 1000 + 4 * STEP) == 0  # all but this one are forgotten
    assert failures.charge("u", 3, 1000 + 4 * STEP) == 0
    assert failures.charge("u", 3, 1000 + 4 * STEP) == 0
    assert failures.charge("u", 3, 1000 + 4 * STEP) > 0


def test_right_passwords_are_given_back() -> None:
    failures = Failures()
    for _ in range(100):
        assert failures.charge("u", 3, 0) == 0
        failures.give_back("u")
    failures.give_back("never charged")


def test_the_table_is_bounded_and_forgets() -> None:
    failures = Failures(table=10)
    for number in range(100):
        assert failures.charge(f"u{number}", 1, 0) == 0
    assert len(failures) == 10
    assert failures.charge("u99", 1, 0) > 0
    assert failures.charge("u0", 1, 0) == 0  # forgotten
    failures.charge("later", 1, STEP)
    assert len(failures) == 1


@given(st.lists(st.tuples(st.integers(0, 3 * STEP), st.booleans()), max_size=60))
def test_never_more_than_allowed_in_any_span(steps: list[tuple[int, bool]]) -> None:
    allowed = 4
    failures = Failures()
    now, failed = 0, []
    for wait, right in steps:
        now += wait
        if failures.charge("u", allowed, now) == 0:
            if right:
                failures.give_back("u")
            else:
                failed.append(now)
    for index, start in enumerate(failed):
        for count, end in enumerate(failed[index:], 1):
            assert count <= allowed + (end - start) / STEP + 1e-9
