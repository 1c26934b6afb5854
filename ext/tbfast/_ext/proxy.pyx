"""The PROXY protocol header before a connection (MQTT spec 9)."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

from tbfast.errors import PeerError

from tbfast._ext.batch cimport TBF_MORE, TBF_OK, tbf_status


def read_header(bytes data not None):
    """(bytes of the header, source address or None, source port); None = more bytes are needed.

    The address has 16 bytes, IPv4 as IPv6 maps it.  PeerError: this is no header.
    """
    cdef tbf_proxy found
    cdef tbf_status status = tbf_proxy_read(
        <const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data), &found)
    if status == TBF_MORE:
        return None
    if status != TBF_OK:
        raise PeerError("no PROXY protocol header")
    return found.total, (<char *>found.address)[:16] if found.has_source else None, found.port
