"""The commonest HTTP request, a plain telemetry POST, without a Python object per header."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

from tbfast import limits
from tbfast._ext.batch cimport tbf_span

cdef extern from "tbf_http.h" nogil:
    ctypedef struct tbf_http_plain:
        tbf_span token
        tbf_span body
    bint tbf_http_post(const uint8_t *p, size_t n, size_t max_head, unsigned max_headers,
                       tbf_http_plain *out)

cdef size_t _max_head = limits.HTTP_HEAD_BYTES
cdef unsigned _max_headers = limits.HTTP_HEADERS


def plain_post(bytes data not None):
    """(access token, body) if the bytes are exactly one plain telemetry POST, else None."""
    cdef tbf_http_plain found
    if not tbf_http_post(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data),
                         _max_head, _max_headers, &found):
        return None
    return ((<char *>found.token.p)[:found.token.n].decode("ascii"),
            (<char *>found.body.p)[:found.body.n])
