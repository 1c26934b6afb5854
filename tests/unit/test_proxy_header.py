"""PROXY protocol headers from vectors."""

import ipaddress
import json
from pathlib import Path

import pytest

from tbfast._ext.proxy import read_header
from tbfast.errors import PeerError

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/proxy_headers.json").read_text())


def bytes_of(case):
    return bytes.fromhex(case["hex"]) if "hex" in case else case["in"].encode()


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_vector(case):
    data = bytes_of(case)
    if case.get("error"):
        with pytest.raises(PeerError):
            read_header(data)
        return
    source = case["source"]
    address = None
    if source is not None:
        address = ipaddress.ip_address(source).packed.rjust(16, b"\0")
        if "." in source:
            address = bytes(10) + b"\xff\xff" + address[12:]
    assert read_header(data) == (len(data), address, case["port"])
    assert read_header(data + b"\x10\x00") == (len(data), address, case["port"])
    for cut in range(len(data)):
        assert read_header(data[:cut]) is None
