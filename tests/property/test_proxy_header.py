"""PROXY protocol headers against the address parser of Python."""

import contextlib
import ipaddress

from hypothesis import example, given
from hypothesis import strategies as st

from tbfast._ext.proxy import read_header
from tbfast.errors import PeerError

PORTS = st.integers(0, 65_535)
V4 = st.ip_addresses(v=4)
V6 = st.ip_addresses(v=6) | st.integers(0, 2**128 - 1).map(
    lambda n: ipaddress.ip_address((n & (n >> 1) & (n >> 3) & (n >> 7)) % 2**128)
).filter(lambda a: a.version == 6)


def mapped(address):
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


@given(st.tuples(V4, V4) | st.tuples(V6, V6), PORTS, PORTS, st.booleans())
def test_every_written_header_is_read(addresses, source_port, port, exploded):
    source, target = addresses
    text = source.exploded if exploded else source.compressed
    line = f"PROXY TCP{source.version} {text} {target} {source_port} {port}\r\n".encode()
    assert read_header(line) == (len(line), mapped(source), source_port)

    family = b"\x11" if source.version == 4 else b"\x21"
    body = source.packed + target.packed
    body += source_port.to_bytes(2, "big") + port.to_bytes(2, "big")
    head = b"\r\n\r\n\0\r\nQUIT\n\x21" + family + len(body).to_bytes(2, "big")
    assert read_header(head + body) == (len(head + body), mapped(source), source_port)


@given(st.text("0123456789abcF:.", max_size=45))
@example("1::2::3")
@example("1:2:3:4:5:6:7::")
@example("::1.2.3.4")
@example("1:2:3:4:5:6:7:8::")
@example("1:2:3:4:5:6:7:1.2.3.4")
@example("00001::")
def test_addresses_are_those_of_python(text):
    for version, kind in ((4, ipaddress.IPv4Address), (6, ipaddress.IPv6Address)):
        expected = None
        with contextlib.suppress(ValueError):
            expected = mapped(kind(text))
        found = None
        with contextlib.suppress(PeerError):
            target = "1.1.1.1" if version == 4 else "::1"
            header = read_header(f"PROXY TCP{version} {text} {target} 1 2\r\n".encode())
            assert header is not None
            found = header[1]
        assert found == expected


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_more_or_an_error(data):
    with contextlib.suppress(PeerError):
        found = read_header(data)
        assert found is None or 0 < found[0] <= len(data)
