"""Who may connect, and when: blocked addresses, flapping devices, TLS handshakes under way."""

import os
from collections.abc import Callable

import pytest

from tbfast._ext.cells import Cells
from tbfast.net.blocks import MAX_COUNT, UNIT_MS, WAYS, AddressBlocks
from tbfast.net.flapping import FIRST_DELAY_MS, LAST_DELAY_MS, LOG_INTERVAL_MS, Flapping
from tbfast.net.handshakes import UNFAIR, Full, Handshakes

A, B = b"\1\1\1\1", b"\2\2\2\2"


def test_an_address_is_blocked_until_the_time_after_its_last_failure() -> None:
    blocks = AddressBlocks(3, 1000)
    assert [blocks.failed(A, now) for now in (0, 100, 200)] == [False, False, True]
    assert blocks.blocked(A, 201)
    assert not blocks.blocked(B, 201)
    assert blocks.blocked(A, 1199)
    assert not blocks.blocked(A, 1200)
    assert not blocks.failed(A, 1200)  # counts from one again


def test_a_success_forgets_failures() -> None:
    blocks = AddressBlocks(2, 1000)
    blocks.failed(A, 0)
    blocks.succeeded(A)
    assert not blocks.failed(A, 1)
    assert not blocks.blocked(A, 1)


def test_the_address_that_failed_longest_ago_is_forgotten() -> None:
    blocks = AddressBlocks(1, 100_000, max_addresses=WAYS)  # all share one set
    addresses = [number.to_bytes(16, "big") for number in range(WAYS + 3)]
    for number, address in enumerate(addresses):
        blocks.failed(address, number * UNIT_MS)
    now = len(addresses) * UNIT_MS
    assert [blocks.blocked(a, now) for a in addresses] == [False] * 3 + [True] * WAYS


def test_addresses_do_not_mix() -> None:
    blocks = AddressBlocks(1, 100_000)
    bad = [number.to_bytes(16, "big") for number in range(10_000)]
    for address in bad:
        blocks.failed(address, 5)
    assert sum(blocks.blocked(address, 6) for address in bad) > 9_900  # a few full sets
    others = [number.to_bytes(16, "big") for number in range(10_000, 20_000)]
    assert not any(blocks.blocked(address, 6) for address in others)


def test_failures_beyond_the_count_stay_blocked() -> None:
    blocks = AddressBlocks(MAX_COUNT, 1000)
    assert sum(blocks.failed(A, 0) for _ in range(MAX_COUNT)) == 1
    for _ in range(5):
        blocks.failed(A, 0)
        assert blocks.blocked(A, 0)


def in_processes(body: Callable[[], None], count: int = 4) -> None:
    """Runs it in forked processes at once."""
    children = []
    for _ in range(count):
        if (pid := os.fork()) == 0:
            code = 1
            try:
                body()
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0


def test_processes_count_together() -> None:
    blocks = AddressBlocks(100, 100_000)
    flapping = Flapping(burst=100, interval_ms=1000)

    def fail_and_connect() -> None:
        for _ in range(24):
            assert not blocks.failed(A, 0)
            assert flapping.connects(7, 0) == (0, False)

    in_processes(fail_and_connect)
    assert not any(blocks.failed(A, 0) for _ in range(3))
    assert blocks.failed(A, 0)  # the hundredth
    assert all(flapping.connects(7, 0) == (0, False) for _ in range(4))
    assert flapping.connects(7, 0) == (FIRST_DELAY_MS, True)


def test_no_change_of_a_word_is_lost() -> None:
    cells = Cells(2)

    def count() -> None:
        for _ in range(5_000):
            while not cells.swap(1, was := cells.load(1), was + 1):
                pass

    in_processes(count)
    assert (cells.load(0), cells.load(1)) == (0, 20_000)
    for index in (-1, 2):
        with pytest.raises(IndexError):
            cells.load(index)


def test_a_device_that_connects_every_second_is_let_in_later_and_later() -> None:
    flapping = Flapping(burst=30, interval_ms=2000)
    waits = [flapping.connects(1, second * 1000) for second in range(120)]
    calm = next(i for i, (wait, _) in enumerate(waits) if wait)
    assert 30 <= calm <= 61
    assert waits[calm] == (FIRST_DELAY_MS, True)
    assert max(wait for wait, _ in waits) == LAST_DELAY_MS
    assert sum(said for _, said in waits) == (120 - calm + 59) * 1000 // LOG_INTERVAL_MS


def test_devices_that_connect_now_and_then_never_wait() -> None:
    flapping = Flapping(burst=30, interval_ms=2000)
    assert all(flapping.connects(1, n * 2000)[0] == 0 for n in range(1000))
    assert all(flapping.connects(2, 0)[0] == 0 for n in range(30))
    assert flapping.connects(2, 0)[0] > 0
    assert flapping.connects(3, 0)[0] == 0


def test_flapping_takes_bounded_memory() -> None:
    flapping = Flapping(burst=2, interval_ms=1000, devices=10)
    assert [flapping.connects(device, 0)[0] for device in (3, 4, 2**62 + 5, 3)] == [0, 0, 0, 0]
    assert flapping.connects(13, 0)[0] > 0  # shares a word with 3


def test_handshakes_of_another_address_get_in_at_once() -> None:
    shakes = Handshakes(20, patience_ms=100)
    for slot in range(20):
        assert shakes.in_the_way(A, slot) is None
        shakes.begins(slot, A, slot)
    with pytest.raises(Full):
        shakes.in_the_way(A, 50)
    assert shakes.in_the_way(B, 50) == 0
    assert shakes.in_the_way(A, 100) == 0  # it has taken too long
    shakes.ended(0)
    shakes.ended(0)
    assert shakes.in_the_way(A, 50) is None
    assert len(shakes) == 19


def test_handshakes_of_like_addresses_wait_for_each_other() -> None:
    shakes = Handshakes(20, patience_ms=100)
    for slot in range(20):
        shakes.begins(slot, bytes([slot]), slot)
    for address in (b"\0", b"new"):
        with pytest.raises(Full):
            shakes.in_the_way(address, 50)
        assert shakes.in_the_way(address, 100) == 0  # it has taken too long
    for slot in range(1, 1 + UNFAIR):
        shakes.ended(slot)
        shakes.begins(20 + slot, b"\0", 60)
    assert shakes.in_the_way(b"new", 60) == 0  # far more than its share
    for address in (b"\0", bytes([19])):
        with pytest.raises(Full):
            shakes.in_the_way(address, 60)
