"""The commonest HTTP request, a plain telemetry POST, straight to rows of the open batch."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

from tbfast import limits
from tbfast.errors import RateLimited
from tbfast._ext.batch cimport TBF_OK, tbf_batch_mark, tbf_batch_rollback, tbf_mark, tbf_span
from tbfast._ext.ingest cimport Ingest
from tbfast._ext.posix cimport CLOCK_MONOTONIC, CLOCK_REALTIME, now_ns
from tbfast._ext.tbjson cimport append_json, tbf_json_result

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


def take_post(Ingest ingest not None, devices, waiter, bytes data not None):
    """Whether the bytes were one plain telemetry POST that now waits for the commit of its rows.

    devices(token) returns who is known by it, or None; the waiter's read_ns is set and it goes
    with the open group.  Whatever is not plain, known and right is left for the strict reader.
    RateLimited: it is over a limit, nothing of it is kept.
    """
    cdef tbf_http_plain found
    cdef tbf_json_result result
    cdef tbf_mark mark
    cdef long long mono_ns
    if not tbf_http_post(<const uint8_t *>PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data),
                         _max_head, _max_headers, &found) or found.body.n == 0:
        return False
    device = devices((<char *>found.token.p)[:found.token.n].decode("ascii"))
    if device is None:
        return False
    mono_ns = now_ns(CLOCK_MONOTONIC)
    ingest.set_time(now_ns(CLOCK_REALTIME) // 1000000, mono_ns)
    mark = tbf_batch_mark(&ingest.batch.b)
    try:
        if append_json(ingest.batch, device.device, ingest.context.wall_ms, found.body.p,
                       found.body.n, False, &ingest.json, &result) != TBF_OK:
            return False
    except MemoryError:
        return False
    if ingest.context.rates != NULL:
        try:
            ingest.account(device.scope, device.device, result.points)
        except RateLimited:
            tbf_batch_rollback(&ingest.batch.b, &mark)
            raise
    if result.records == 0:
        ingest.note_quiet(device.device)
    ingest.group.g.bad_utf8 += result.bad_utf8
    ingest.group.g.messages += 1
    waiter.read_ns = mono_ns
    ingest.group.waiters.append(waiter)
    return True
