"""Columns for chunk tests: sensor-like and hostile ones, and comparison to the last bit."""

import random
import struct
from typing import Any

from hypothesis import strategies as st

Point = tuple[int, str, Any]
Column = tuple[int, list[Point]]

INT64 = st.integers(-(2**63), 2**63 - 1)
EDGES = st.sampled_from([-(2**63), 2**63 - 1, -1, 0, 1, 2**32, -(2**31), 10**18, 2**53 + 1])
TIMES = st.one_of(INT64, EDGES, st.integers(1_764_000_000_000, 1_764_000_100_000))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
# Any 64 bits: NaN with payloads, infinities, -0.0 and denormals come as often as they like.
DOUBLES = st.one_of(
    st.binary(min_size=8, max_size=8).map(lambda b: float(struct.unpack("<d", b)[0])),
    st.floats(),
    st.sampled_from([0.0, -0.0, 21.5, 1e300, 5e-324, float("inf"), float("-inf")]),
    st.floats(width=32),
    st.integers(-(10**6), 10**6).map(lambda m: m / 100),
)
DECIMALS = st.tuples(st.one_of(INT64, EDGES, st.integers(-999, 999)), st.integers(0, 64))

TYPED: dict[str, st.SearchStrategy[Any]] = {
    "INT64": st.one_of(INT64, EDGES, st.integers(-100, 100)),
    "DECIMAL": DECIMALS,
    "DOUBLE": DOUBLES,
    "BOOL": st.booleans(),
    "STRING": TEXTS,
    "JSON": TEXTS,
    "BYTES": st.binary(max_size=12),
}
VALUES = st.one_of([values.map(lambda v, t=name: (t, v)) for name, values in TYPED.items()])


@st.composite
def short_columns(draw: st.DrawFn) -> Column:
    """Anything, in a few points."""
    ts = sorted(draw(st.sets(TIMES, min_size=1, max_size=12)))
    name = draw(st.sampled_from([*TYPED, "any"]))
    one = VALUES if name == "any" else TYPED[name].map(lambda v: (name, v))
    values = draw(st.lists(one, min_size=len(ts), max_size=len(ts)))
    points = [(t, *v) for t, v in zip(ts, values, strict=True)]
    return draw(st.integers(0, 2**32 - 1)), points


def _steps(rng: random.Random, n: int) -> list[int]:
    """Integers with a habit: constant, walking, noisy, with spikes, with steps, wild."""
    habit = rng.choice(["constant", "walk", "noise", "spikes", "steps", "slope", "wild", "full"])
    start = rng.choice([0, 21, 2_150, -5, 10**9, 2**62])
    width = 1 << rng.randint(1, 40)
    out, value = [], start
    for i in range(n):
        if habit == "walk":
            value += rng.randint(-width, width)
        elif habit == "noise":
            value = start + rng.randint(-width, width)
        elif habit == "spikes":
            value = start + (width if rng.random() < 0.04 else rng.randint(0, 3))
        elif habit == "steps":
            value += rng.choice([-1, 1]) * width if rng.random() < 0.02 else 0
        elif habit == "slope":
            value = start + i * width // 7 + rng.randint(-2, 2)
        elif habit == "wild":
            value = rng.randint(-(1 << rng.randint(1, 62)), 1 << rng.randint(1, 62))
        elif habit == "full":
            value = rng.randint(-(2**63), 2**63 - 1)
        out.append((value + 2**63) % 2**64 - 2**63)
    return out


def _times(rng: random.Random, n: int) -> list[int]:
    start = 1_764_000_000_000
    habit = rng.choice(["exact", "jitter", "gaps", "events"])
    if habit == "exact":
        return [start + i * 10_000 for i in range(n)]
    if habit == "jitter":
        return [start + i * 1_000 + rng.randint(-5, 5) for i in range(n)]
    if habit == "gaps":
        steps = [3_600_000 if rng.random() < 0.01 else 1_000 for _ in range(n)]
    else:
        steps = [1 + int(rng.expovariate(1 / 30_000)) for _ in range(n)]
    out = []
    for step in steps:
        start += step
        out.append(start)
    return out


def _numbers(rng: random.Random, n: int) -> list[tuple[str, Any]]:
    scale, floor = rng.randint(1, 4), rng.randint(0, 1)
    style = rng.choice(["INT64", "fixed", "shortest", "forms"])
    out: list[tuple[str, Any]] = []
    for m in _steps(rng, n):
        own = scale
        if style == "shortest":
            while own > floor and m % 10 == 0:
                m, own = m // 10, own - 1
        elif style == "forms":
            own = rng.randint(0, scale)
        integer = style == "INT64" or (own == 0 and rng.random() < 0.9)
        out.append(("INT64", m) if integer else ("DECIMAL", (m, own)))
    return out


def _doubles(rng: random.Random, n: int) -> list[tuple[str, Any]]:
    style = rng.choice(["decimal", "float", "decimal with NaN", "any"])
    out: list[tuple[str, Any]] = []
    for m in _steps(rng, n):
        value = rng.gauss(20, 5) if style == "any" else m / 100
        if style == "float":
            (value,) = struct.unpack("f", struct.pack("f", value))
        if style == "decimal with NaN" and rng.random() < 0.05:
            value = rng.choice([float("nan"), -0.0, 1 / 3])
        out.append(("DOUBLE", value))
    return out


def _texts(rng: random.Random, n: int) -> list[tuple[str, Any]]:
    name = rng.choice(["STRING", "JSON", "BYTES"])
    distinct = rng.choice([1, 4, 40, 256, 257, 10_000])
    texts = [f"state-{rng.randrange(distinct)}" for _ in range(n)]
    return [(name, t.encode() if name == "BYTES" else t) for t in texts]


def _bools(rng: random.Random, n: int) -> list[tuple[str, Any]]:
    often = rng.choice([0.0, 0.02, 0.5, 1.0])
    return [("BOOL", rng.random() < often) for _ in range(n)]


def long_columns(seed: int, n: int, count: int) -> list[Column]:
    """Columns of about n points, some with the same times."""
    rng = random.Random(seed)
    makers = [_numbers, _doubles, _texts, _bools]
    shared = _times(rng, n)
    columns = []
    for key in range(count):
        ts = shared if rng.random() < 0.6 else _times(rng, rng.randint(1, n))
        if rng.random() < 0.2:
            choices = [maker(rng, len(ts)) for maker in makers]
            values = [rng.choice(choices)[i] for i in range(len(ts))]
        else:
            values = rng.choice(makers)(rng, len(ts))
        columns.append((key, [(t, *v) for t, v in zip(ts, values, strict=True)]))
    return columns


def bits(columns: list[Column]) -> list[Column]:
    """Doubles as their bits, so that comparing sees NaN payloads and -0.0."""
    return [
        (
            key,
            [(ts, name, struct.pack("<d", v) if name == "DOUBLE" else v) for ts, name, v in points],
        )
        for key, points in columns
    ]
