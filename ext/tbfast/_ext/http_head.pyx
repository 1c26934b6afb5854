"""Heads of HTTP/1.x: of requests, written anew for the controller, and of its answers."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from tbfast import limits
from tbfast.errors import HttpError

from tbfast._ext.batch cimport tbf_span

cdef extern from "<string.h>" nogil:
    void *memmem(const void *p, size_t n, const void *what, size_t size)

cdef extern from "tbf_http_head.h" nogil:
    ctypedef enum tbf_http_fault:
        TBF_HTTP_OK
        TBF_HTTP_BAD_LINE
        TBF_HTTP_BAD_METHOD
        TBF_HTTP_BAD_VERSION
        TBF_HTTP_BAD_HEADER
        TBF_HTTP_BAD_LENGTH
        TBF_HTTP_BAD_ENCODING
        TBF_HTTP_BAD_HOST
        TBF_HTTP_LONG_TARGET
        TBF_HTTP_MANY_HEADERS
        TBF_HTTP_OTHER_HOST
        TBF_HTTP_NO_PATH
    ctypedef struct tbf_http_fields:
        uint64_t length
        bint has_length
        bint chunked
        tbf_span lines
    ctypedef struct tbf_http_request:
        int method
        unsigned minor
        bint keep_alive
        bint expects_continue
        bint has_authority
        bint websocket
        tbf_span target
        tbf_span path
        tbf_span query
        tbf_span authority
        tbf_http_fields fields
    ctypedef struct tbf_http_answer:
        unsigned status
        unsigned minor
        bint keep_alive
        bint bodiless
        tbf_span reason
        tbf_http_fields fields
    const char *const *tbf_http_methods
    tbf_http_fault tbf_http_request_read(const uint8_t *p, size_t n, size_t max_target,
                                         unsigned max_headers, tbf_http_request *out)
    tbf_http_fault tbf_http_answer_read(const uint8_t *p, size_t n, bint head,
                                        tbf_http_answer *out)
    bint tbf_http_next(tbf_span *lines, tbf_span *name, tbf_span *value)
    size_t tbf_http_forward_room(size_t head, size_t peer)
    tbf_http_fault tbf_http_forward(const tbf_http_request *request, tbf_span peer, uint8_t *out,
                                    size_t cap, size_t *n)
    size_t tbf_http_return(const tbf_http_answer *answer, bint old, bint keep_alive,
                           bint chunked, uint8_t *out, size_t cap)

cdef tuple _methods():
    cdef list found = []
    cdef size_t i = 0
    while tbf_http_methods[i] != NULL:
        found.append(tbf_http_methods[i].decode("ascii"))
        i += 1
    return tuple(found)

cdef tuple METHODS = _methods()
cdef size_t _max_head = limits.HTTP_HEAD_BYTES
cdef size_t _max_body = limits.HTTP_BODY_BYTES
cdef size_t _max_target = limits.HTTP_TARGET_BYTES
cdef unsigned _max_headers = limits.HTTP_HEADERS

# Status, message and word of the metric.
cdef dict _FAULTS = {
    TBF_HTTP_BAD_LINE: (400, "request line is malformed", "malformed"),
    TBF_HTTP_BAD_METHOD: (405, "this method is not known", "protocol"),
    TBF_HTTP_BAD_VERSION: (400, "only HTTP/1.x is spoken here", "protocol"),
    TBF_HTTP_BAD_HEADER: (400, "a header is malformed", "malformed"),
    TBF_HTTP_BAD_LENGTH: (400, "the length of the body is not clear", "malformed"),
    TBF_HTTP_BAD_ENCODING: (400, "this transfer encoding is not supported", "malformed"),
    TBF_HTTP_BAD_HOST: (400, "one Host header is required", "malformed"),
    TBF_HTTP_LONG_TARGET: (414, "request target is too long", "too_big"),
    TBF_HTTP_MANY_HEADERS: (431, "too many headers", "too_big"),
    TBF_HTTP_OTHER_HOST: (400, "the target names another host than the Host header", "malformed"),
    TBF_HTTP_NO_PATH: (404, "Not found", "topic"),
}

cdef dict _ANSWER_FAULTS = {
    TBF_HTTP_BAD_LENGTH: "the length of an answer is not clear",
    TBF_HTTP_BAD_ENCODING: "the encoding of an answer is not known",
}


cdef bytes _bytes(tbf_span span):
    return (<const char *>span.p)[:span.n]


# Where heads are written, under the GIL: room for one of limits.HTTP_HEAD_BYTES.
cdef enum:
    ROOM = 32768
cdef uint8_t _room[ROOM]


cdef bytes _joined(size_t n, const uint8_t *body, size_t size):
    """The head that was written, and a body."""
    cdef bytes out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(n + size))
    cdef char *p = PyBytes_AS_STRING(out)
    memcpy(p, _room, n)
    if size:
        memcpy(p + n, body, size)
    return out


cdef size_t _head_size(bytes data):
    """Bytes of the head at the start of the data, 0 if it is not complete within its bound."""
    cdef const char *p = PyBytes_AS_STRING(data)
    cdef size_t n = min(<size_t>PyBytes_GET_SIZE(data), _max_head)
    cdef const char *end = <const char *>memmem(p, n, b"\r\n\r\n", 4)
    return 0 if end == NULL else <size_t>(end - p) + 4


@cython.final
@cython.freelist(64)
cdef class Head:
    """Request line and headers of a request; spans point into `raw`."""

    cdef tbf_http_request _r
    cdef bytes _raw
    cdef size_t _size
    cdef readonly str method
    cdef readonly bytes path
    cdef readonly bint keep_alive

    def __init__(self, bytes raw not None):
        cdef tbf_http_fault fault = self._read(raw, <size_t>PyBytes_GET_SIZE(raw))
        if fault != TBF_HTTP_OK:
            raise HttpError(*_FAULTS[fault])

    cdef tbf_http_fault _read(self, bytes raw, size_t n) except *:
        """Reads the first n bytes; what follows is the body."""
        cdef tbf_http_fault fault = tbf_http_request_read(
            <const uint8_t *>PyBytes_AS_STRING(raw), n, _max_target, _max_headers, &self._r)
        self._raw = raw
        self._size = n
        if fault == TBF_HTTP_OK:
            self.method = METHODS[self._r.method]
            self.path = _bytes(self._r.path)
            self.keep_alive = self._r.keep_alive
        return fault

    @property
    def target(self):
        return _bytes(self._r.target)

    @property
    def query(self):
        return _bytes(self._r.query)

    @property
    def authority(self):
        return _bytes(self._r.authority) if self._r.has_authority else None

    @property
    def version(self):
        return "1.1" if self._r.minor else "1.0"

    @property
    def expects_continue(self):
        return self._r.expects_continue

    @property
    def chunked(self):
        return self._r.fields.chunked

    @property
    def length(self):
        return self._r.fields.length

    @property
    def has_body(self):
        return self._r.fields.chunked or self._r.fields.length > 0

    @property
    def websocket(self):
        return self._r.websocket

    @property
    def headers(self):
        cdef tbf_span lines = self._r.fields.lines, name, value
        cdef list found = []
        while tbf_http_next(&lines, &name, &value):
            found.append((_bytes(name).lower(), _bytes(value)))
        return tuple(found)

    def header(self, bytes name not None):
        cdef tbf_span lines = self._r.fields.lines, key, value
        cdef size_t n = <size_t>PyBytes_GET_SIZE(name)
        while tbf_http_next(&lines, &key, &value):
            if key.n == n and _bytes(key).lower() == name:
                return _bytes(value)
        return None

    def forward(self, bytes peer not None):
        cdef size_t n = 0
        cdef tbf_http_fault fault = self._write(peer, &n)
        if fault != TBF_HTTP_OK:
            raise HttpError(*_FAULTS[fault])
        return _joined(n, NULL, 0)

    cdef tbf_http_fault _write(self, bytes peer, size_t *n) except *:
        cdef tbf_span who
        who.p = <const uint8_t *>PyBytes_AS_STRING(peer)
        who.n = <size_t>PyBytes_GET_SIZE(peer)
        if tbf_http_forward_room(self._size, who.n) > ROOM:
            return TBF_HTTP_MANY_HEADERS
        return tbf_http_forward(&self._r, who, _room, ROOM, n)


def whole_request(bytes data not None, bytes peer not None, tuple reserved not None):
    cdef size_t n = _head_size(data), written = 0
    cdef size_t body = <size_t>PyBytes_GET_SIZE(data) - n
    if n == 0 or body > _max_body:
        return None
    cdef Head head = Head.__new__(Head)
    cdef tbf_http_request *r = &head._r
    if (head._read(data, n) != TBF_HTTP_OK or r.fields.chunked or r.fields.length != body
            or r.expects_continue or r.websocket or head.path.startswith(reserved)
            or head._write(peer, &written) != TBF_HTTP_OK):
        return None
    return head, _joined(written, <const uint8_t *>PyBytes_AS_STRING(data) + n, body)


@cython.final
@cython.freelist(64)
cdef class AnswerHead:
    """Status line and headers of an answer of the controller."""

    cdef tbf_http_answer _a
    cdef bytes _raw
    cdef readonly unsigned status
    cdef readonly bint keep_alive
    cdef readonly bint chunked
    cdef readonly object length

    def __init__(self, bytes raw not None, str method not None):
        cdef tbf_http_fault fault = tbf_http_answer_read(
            <const uint8_t *>PyBytes_AS_STRING(raw), <size_t>PyBytes_GET_SIZE(raw),
            method == "HEAD", &self._a)
        if tbf_http_forward_room(<size_t>PyBytes_GET_SIZE(raw), 0) > ROOM:
            raise HttpError(502, "the head of an answer is too long")
        if fault != TBF_HTTP_OK:
            raise HttpError(502, _ANSWER_FAULTS.get(fault, "an answer is malformed"))
        self._raw = raw
        self.status = self._a.status
        self.keep_alive = self._a.keep_alive
        self.chunked = self._a.fields.chunked and not self._a.bodiless
        if self._a.bodiless:
            self.length = 0
        elif self._a.fields.has_length:
            self.length = self._a.fields.length
        else:
            self.length = None

    @property
    def interim(self):
        return self.status < 200 and self.status != 101

    def encode(self, Head asked not None, *, bint keep_alive, bint chunked):
        cdef size_t n = tbf_http_return(&self._a, asked._r.minor == 0, keep_alive, chunked, _room,
                                        ROOM)
        return _joined(n, NULL, 0)


def whole_answer(bytes data not None, Head asked not None):
    cdef tbf_http_answer a
    cdef size_t n = _head_size(data), body = <size_t>PyBytes_GET_SIZE(data) - n
    cdef const uint8_t *p = <const uint8_t *>PyBytes_AS_STRING(data)
    if n == 0 or not asked._r.keep_alive:
        return None
    if (tbf_http_answer_read(p, n, asked.method == "HEAD", &a) != TBF_HTTP_OK or a.status < 200
            or not a.keep_alive or (a.fields.chunked and not a.bodiless)
            or body != (0 if a.bodiless else a.fields.length)):
        return None
    return _joined(tbf_http_return(&a, asked._r.minor == 0, True, False, _room, ROOM), p + n, body)
