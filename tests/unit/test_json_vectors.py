"""Every row of tests/vectors/json_telemetry.json, by the scanner and by the oracle.

A row: name, clause of the MQTT spec (or of hostile-input), payload or hex, attributes, options of
the scanner, and rows as [ts, key, type, value] or "reject".  ts null is server time.  A DOUBLE
given as text is stored exactly, one given as a number is stored as the nearest binary double.
"""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support import oracle_json
from tests.support.json_scan import (
    NOW_MS,
    Options,
    OracleRow,
    append,
    canonical,
    new_batch,
    outcome,
    scan,
)
from tests.support.rows import parse_strict, read_batch

VECTORS = json.loads((Path(__file__).parent.parent / "vectors/json_telemetry.json").read_text())
STORED = {"LONG": "INT64", "BOOLEAN": "BOOL", "STRING": "STRING", "JSON": "JSON"}


def payload_of(vector: dict[str, Any]) -> bytes:
    if "hex" in vector:
        return bytes.fromhex(vector["hex"])
    return vector["payload"].encode()


def row_of(ts: int | None, key: str, name: str, value: Any) -> OracleRow:
    if name == "DOUBLE":
        name, value = ("DECIMAL", Decimal(value)) if isinstance(value, str) else (name, value)
    else:
        name, value = STORED[name], parse_strict(value) if name == "JSON" else value
    return OracleRow(NOW_MS if ts is None else ts, key, name, value)


def wanted(vector: dict[str, Any]) -> Any:
    """Rows in one sorted list; which record each belongs to is left to the property tests."""
    if vector["rows"] == "reject":
        return "refused"
    return sorted(canonical([[row_of(*row) for row in vector["rows"]]])[0])


def flat(result: Any) -> Any:
    return result if result == "refused" else sorted(row for record in result for row in record)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vector(vector: dict[str, Any]) -> None:
    payload = payload_of(vector)
    options = Options(**vector.get("options", {}))
    attributes = vector.get("attributes", False)
    oracle = oracle_json.attributes if attributes else oracle_json.telemetry
    assert flat(outcome(oracle, payload, NOW_MS, options)) == wanted(vector)
    assert flat(outcome(scan, payload, options, attributes=attributes)) == wanted(vector)


def test_text_of_nested_values_byte_for_byte() -> None:
    """parse_strict forgives what a reader cannot tell; here nothing is."""
    batch = new_batch()
    payload = (
        b"""{"o": {"b": 1.50, b: [true , ,"\\u0041\\ud800"], "a": null, 'c"': {}, "b": "\\/x" }}"""
    )
    append(batch, payload, Options(), attributes=False)
    [[row]] = read_batch(batch).records
    assert row.value == '{"b":"\\/x","c\\"":{}}'
