"""Blocks written by an obvious writer and read by the real readers, against a plain model."""

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tbfast._ext.ingest import Ingest
from tbfast._ext.scan import RangeScan
from tbfast._ext.series import rows
from tbfast._ext.tail import Tail
from tbfast.errors import StoreError
from tests.support.blocks import (
    BYTES,
    DECIMAL,
    DOUBLE,
    FALSE,
    INT64,
    JSON,
    STRING,
    TRUE,
    Block,
    Point,
    Record,
    Series,
    blob,
    frame,
    json_value,
    parsed,
    write_block,
)
from tests.support.rows import read_block

NAMES = ["a", "b", "temperature", "ключ", "x" * 200]
INLINE = ["b", "inline", "a"]
DEVICES = st.integers(1, 3) | st.sampled_from([2**40, 2**62 - 1])
TIMES = st.integers(-5, 20) | st.integers(-(2**63), 2**63 - 1)
INT64S = st.integers(-(2**63), 2**63 - 1)
VALUES = st.one_of(
    st.tuples(st.just(INT64), INT64S),
    st.tuples(st.just(DOUBLE), st.floats(allow_nan=False, allow_infinity=False)),
    st.tuples(st.sampled_from([FALSE, TRUE]), st.none()),
    st.tuples(st.just(STRING), st.text(max_size=20)),
    st.tuples(st.just(JSON), st.sampled_from(['{"a":[1,2.50]}', "[]", '{"ü":"\\n"}'])),
    st.tuples(st.just(BYTES), st.binary(max_size=20)),
    st.tuples(st.just(DECIMAL), st.tuples(INT64S, st.integers(0, 64))),
)


@st.composite
def records(draw: st.DrawFn, known: int) -> Record:
    """Each live key at most once, dead points anywhere before."""
    numbers = st.integers(1, known) if known else st.nothing()
    names = draw(st.lists(numbers | st.sampled_from(INLINE), min_size=1, max_size=5, unique=True))
    taken = {NAMES[key - 1] for key in names if isinstance(key, int)}
    points = []
    for key in names:
        if isinstance(key, str) and key in taken:
            continue  # a name travels inline only when it has no number
        if draw(st.integers(0, 4)) == 0:
            points.append(Point(key, *draw(VALUES), dead=True))
        points.append(Point(key, *draw(VALUES)))
    if not points:
        points = [Point("inline", INT64, 1)]
    return Record(draw(DEVICES), draw(TIMES), points, draw(st.sampled_from([0, 0, 0, 1])))


@st.composite
def journal(draw: st.DrawFn, number: int) -> list[Block]:
    blocks = []
    commit_ms = draw(st.integers(0, 5))
    for epoch in range(1, draw(st.integers(1, 2)) + 1):
        defined = 0
        for seq in range(1, draw(st.integers(1, 4)) + 1):
            fresh = draw(st.integers(0, len(NAMES) - defined))
            again = draw(st.integers(0, defined)) if fresh else 0  # the block before was refused
            first = defined + 1 - again
            defined += fresh
            blocks.append(
                Block(
                    number, epoch, seq, commit_ms, first, NAMES[first - 1 : defined],
                    draw(st.lists(records(defined), min_size=1, max_size=4)),
                )
            )  # fmt: skip
            commit_ms += draw(st.integers(0, 3))
    return blocks


JOURNALS = st.integers(1, 3).flatmap(lambda n: st.tuples(*map(journal, range(n))))


def scan(scanner: RangeScan, journals: Sequence[Sequence[Block]], base_ms: int | None) -> object:
    """As the journal reader does: journal by journal, each epoch with its key table first."""
    for blocks in journals:
        for _epoch, group in itertools.groupby(blocks, lambda b: b.epoch):
            of_epoch = list(group)
            scanner.epoch(
                [(b.first_key, b"".join(blob(n.encode()) for n in b.names)) for b in of_epoch]
            )
            for block in of_epoch:
                scanner.feed(write_block(block, base_ms))
    return parsed(scanner.to_json())


@given(
    journals=JOURNALS,
    device=DEVICES,
    keys=st.none() | st.lists(st.sampled_from([*NAMES, "inline", "absent"]), unique=True),
    start_ms=st.none() | TIMES,
    end_ms=st.none() | TIMES,
    limit=st.integers(1, 5) | st.just(2**40),
    ascending=st.booleans(),
    kind=st.sampled_from([0, 0, 1]),
    base_ms=st.none() | TIMES,
)
def test_range(journals, device, keys, start_ms, end_ms, limit, ascending, kind, base_ms) -> None:
    model = Series(itertools.chain(*journals))
    scanner = RangeScan(
        device, keys, start_ms=start_ms, end_ms=end_ms, limit=limit, ascending=ascending, kind=kind
    )
    expected = model.range(device, keys, start_ms, end_ms, limit, ascending, kind)
    assert scan(scanner, journals, base_ms) == expected
    assert scanner.key_names() == sorted(expected)


@given(journals=JOURNALS, device=DEVICES, keys=st.none() | st.lists(st.sampled_from(NAMES)))
def test_latest(journals, device, keys) -> None:
    """Blocks applied in commit order."""
    blocks = sorted(itertools.chain(*journals), key=lambda b: (b.commit_ms, b.journal, b.seq))
    tail = Tail()
    for block in sorted(blocks, key=lambda b: (b.commit_ms, b.journal, b.epoch, b.seq)):
        applied = tail.apply(write_block(block))
        live = sum(not p.dead for r in block.records for p in r.points)
        where = (block.journal, block.epoch, block.seq)
        assert applied == (*where, live, block.commit_ms)
    model = Series(blocks)
    text, elsewhere = tail.latest(device, keys)
    assert elsewhere == []
    assert parsed(text + b"}") == model.range(device, keys, None, None, 1, False)
    assert tail.key_names(device) == sorted(model.range(device, None, None, None, 1, False))
    # Client attributes are activity as well (MQTT spec 8.5).
    active = [b.commit_ms for b in blocks for r in b.records if r.device == device]
    assert tail.activity_ms(device) == max(active, default=0)


@given(block=journal(7).map(lambda blocks: blocks[0]), base_ms=st.none() | TIMES)
def test_rows(block, base_ms) -> None:
    found = rows(write_block(block, base_ms), {})
    names = dict(enumerate(block.names, block.first_key))
    assert [(d, kind, ts, name, parsed(text)) for d, kind, ts, name, _, text in found] == [
        (
            record.device,
            record.kind,
            record.ts,
            point.key if isinstance(point.key, str) else names[point.key],
            json_value(point),
        )
        for record in block.records
        for point in record.points
        if not point.dead
    ]


@given(
    block=journal(7).map(lambda blocks: blocks[0]),
    cuts=st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=9)), min_size=1, max_size=3),
)
def test_content_that_passes_the_checksum_but_is_wrong(block, cuts) -> None:
    """A writer's bug must not become a reader's: an error or rows, and no access out of bounds."""
    defs = b"".join(blob(name.encode()) for name in block.names)
    content = defs + write_block(block)[80 + len(defs) :]
    for at, new in cuts:
        at %= len(content)
        content = content[:at] + new + content[at + len(new) :]
    times = [record.ts for record in block.records]
    broken = frame(
        block, block.commit_ms, (min(times), max(times)), 3, content[: len(defs)],
        content[len(defs) :],
    )  # fmt: skip
    for read in (
        lambda: rows(broken, {}),
        lambda: RangeScan(1, None).feed(broken),
        lambda: RangeScan(1, ["a"], kind=1).feed(broken),
        lambda: Tail().apply(broken),
    ):
        try:
            read()
        except StoreError as error:
            assert "journal block" in str(error) or "key definitions" in str(error)


@given(
    payloads=st.lists(
        st.sampled_from(
            [
                b'{"a":1,"b":2.5,"c":true}',
                b'{"a":"text","d":null,"e":{"x":[1]},"a":false}',
                b'{"ts":5,"values":{"f":1e300,"g":-0.0,"h":12345678901234567890}}',
                b'[{"a":1},{"ts":-1,"values":{"i":"","a":0.10}}]',
                b'{"bad":',
                b'{"a":1,"new":2',
                b"[1]",
            ]
        ),
        min_size=1,
        max_size=6,
    ),
    keys_per_epoch=st.integers(1, 6),
)
def test_writer(payloads, keys_per_epoch) -> None:
    """What the batch frames is what an obvious reader reads, refused payloads leaving nothing."""
    ingest = Ingest(keys_per_epoch=keys_per_epoch)
    ingest.at(1_000, 0)
    accepted = 0
    for number, payload in enumerate(payloads, 1):
        try:
            accepted += ingest.append_json(number, payload)[0]
        except Exception as error:
            assert type(error).__name__ == "PeerError"
    group = ingest.take(3, 4, 5, 6, 1)
    if not accepted:
        assert group.value is None
        return
    block = read_block(group.value)
    assert (block.journal_id, block.epoch, block.seq, block.commit_ms) == (3, 4, 5, 6)
    assert len(block.records) == accepted
    assert len(block.keys) == group.last_key <= keys_per_epoch
    mine = rows(group.value, {})
    theirs = [row for record in block.records for row in record]
    assert [(d, ts, name) for d, _, ts, name, _, _ in mine] == [
        (row.device, row.ts, row.key) for row in theirs
    ]
    refused = {n for n, p in enumerate(payloads, 1) if p in (b'{"bad":', b'{"a":1,"new":2', b"[1]")}
    assert not refused & {row.device for row in theirs}
