"""The scanner under test, with its result in the oracle's terms, and the two compared."""

import math
from typing import Any

from tbfast._ext import tbjson
from tbfast._ext.batch import Batch
from tbfast.errors import PeerError
from tests.support import oracle_json
from tests.support.oracle_json import Options, OracleRow, Refused
from tests.support.rows import parse_strict, read_batch

NOW_MS = 1_700_000_000_000
DEVICE = 7
SEED = bytes(range(16))

Records = list[list[OracleRow]]


def new_batch(**options: int) -> Batch:
    batch = Batch(seed=SEED, **options)
    batch.clear(NOW_MS)
    return batch


def records_of(batch: Batch) -> Records:
    """Live rows of the batch, JSON values as trees."""
    return [
        [
            OracleRow(
                row.ts,
                row.key,
                row.type,
                parse_strict(row.value) if row.type == "JSON" else row.value,
            )
            for row in record
        ]
        for record in read_batch(batch).records
    ]


def append(batch: Batch, payload: bytes, options: Options, *, attributes: bool) -> tuple[int, int]:
    call = tbjson.append_attributes if attributes else tbjson.append_telemetry
    return call(batch, DEVICE, payload, NOW_MS, **options._asdict())


def scan(payload: bytes, options: Options | None = None, *, attributes: bool = False) -> Records:
    """Rows of the payload in a fresh batch; Refused if it is refused."""
    batch = new_batch(max_keys=64)
    try:
        counts = append(batch, payload, options or Options(), attributes=attributes)
    except PeerError as error:
        assert error.code == 0x99
        assert (batch.nbytes, batch.records, batch.points, batch.key_count) == (0, 0, 0, 0)
        raise Refused(str(error)) from error
    records = records_of(batch)
    assert counts == (len(records), sum(map(len, records)))
    return records


def canonical(records: Records) -> list[list[tuple[Any, ...]]]:
    """Order of keys within a record does not matter, that of records does; -0.0 is not 0.0."""
    return [
        sorted((row.ts, row.key, row.type, repr(row.value)) for row in record) for record in records
    ]


def outcome(call: Any, *args: Any, **options: Any) -> list[list[tuple[Any, ...]]] | str:
    try:
        return canonical(call(*args, **options))
    except Refused:
        return "refused"


def check(payload: bytes, options: Options | None = None, *, attributes: bool = False) -> None:
    """AssertionError unless scanner and oracle agree on this payload."""
    oracle = oracle_json.attributes if attributes else oracle_json.telemetry
    got = outcome(scan, payload, options, attributes=attributes)
    wanted = outcome(oracle, payload, NOW_MS, options)
    assert got == wanted, payload


def is_finite(records: Records) -> bool:
    return all(
        math.isfinite(row.value) for record in records for row in record if row.type == "DOUBLE"
    )
