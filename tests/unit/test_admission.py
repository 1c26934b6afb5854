"""Who may connect, and when: blocked addresses, flapping devices, TLS handshakes under way."""

import pytest

from tbfast.net.blocks import AddressBlocks
from tbfast.net.flapping import FIRST_DELAY_MS, LAST_DELAY_MS, LOG_INTERVAL_MS, Flapping
from tbfast.net.handshakes import Full, Handshakes

A, B = b"\1\1\1\1", b"\2\2\2\2"


def test_an_address_is_blocked_until_the_time_after_its_last_failure() -> None:
    blocks = AddressBlocks(3, 1000)
    assert [blocks.failed(A, now) for now in (0, 10, 20)] == [False, False, True]
    assert blocks.blocked(A, 21)
    assert not blocks.blocked(B, 21)
    assert blocks.blocked(A, 1019)
    assert not blocks.blocked(A, 1020)
    assert not blocks.failed(A, 1020)  # counts from one again


def test_a_success_forgets_failures() -> None:
    blocks = AddressBlocks(2, 1000)
    blocks.failed(A, 0)
    blocks.succeeded(A)
    assert not blocks.failed(A, 1)
    assert not blocks.blocked(A, 1)


def test_failures_are_bounded_and_purged() -> None:
    blocks = AddressBlocks(2, 1000, max_addresses=10)
    for number in range(100):
        blocks.failed(number.to_bytes(4, "big"), number)
    assert len(blocks) == 10
    blocks.purge(1094)
    assert len(blocks) == 5
    blocks.purge(5000)
    assert len(blocks) == 0


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


def test_flapping_devices_are_bounded() -> None:
    flapping = Flapping(max_devices=10)
    for device in range(100):
        flapping.connects(device, 0)
    assert len(flapping) == 10


def test_handshakes_of_another_address_get_in_at_once() -> None:
    shakes = Handshakes(3, patience_ms=100)
    for slot in range(3):
        assert shakes.in_the_way(A, slot) is None
        shakes.begins(slot, A, slot)
    with pytest.raises(Full):
        shakes.in_the_way(A, 50)
    assert shakes.in_the_way(B, 50) == 0
    assert shakes.in_the_way(A, 100) == 0  # it has taken too long
    shakes.ended(0)
    shakes.ended(0)
    assert shakes.in_the_way(A, 50) is None
    assert len(shakes) == 2
