"""Reading rows back: one block reader for the controller, the command line and the tests.

`Rows` iterates a block row by row, and `Text` writes values as JSON.  A block that fails its
checksum raises StoreError: damage is never silent.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free
from libc.math cimport isfinite
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy

from tbfast.errors import StoreError

from tbfast._ext.batch cimport (
    TBF_BYTES,
    TBF_DECIMAL,
    TBF_DOUBLE,
    TBF_EVERSION,
    TBF_FALSE,
    TBF_INT64,
    TBF_JSON,
    TBF_KEY_NUMBER_MAX,
    TBF_MORE,
    TBF_OK,
    TBF_STRING,
    TBF_TRUE,
)
from tbfast._ext.chunk cimport tbf_cell

cdef extern from "Python.h":
    char *PyOS_double_to_string(double val, char code, int precision, int flags, int *ptype)
    int Py_DTSF_ADD_DOT_0

cdef extern from "tbf_out.h" nogil:
    const size_t TBF_OUT_NUMBER
    size_t tbf_out_string_bound(size_t n)
    size_t tbf_out_string(uint8_t *out, tbf_span utf8)
    size_t tbf_out_int64(uint8_t *out, int64_t v)
    size_t tbf_out_base64(uint8_t *out, tbf_span bytes)

cdef extern from "tbf_points.h" nogil:
    size_t TBF_POINT_HEAD
    size_t tbf_points_bound(const tbf_cell *cells, size_t n)
    size_t tbf_points_text(uint8_t *out, const int64_t *ts, const tbf_cell *cells, size_t n,
                           bint strings, size_t *done)
    size_t tbf_point_head(uint8_t *out, int64_t ts)

TYPE_NAMES = ("int64", "double", "bool", "bool", "string", "json", "bytes", "decimal")

cdef class Text:
    """A growing buffer of JSON text."""

    def __cinit__(self):
        self.cap = 1024
        self.buf = <uint8_t *>malloc(self.cap)
        if self.buf == NULL:
            raise MemoryError("no memory for an answer")

    def __dealloc__(self):
        free(self.buf)

    cdef int room(self, size_t n) except -1 nogil:
        cdef uint8_t *more
        cdef size_t cap = self.cap
        if self.cap - self.len >= n:
            return 0
        while cap - self.len < n:
            cap *= 2
        more = <uint8_t *>realloc(self.buf, cap)
        if more == NULL:
            with gil:
                raise MemoryError("no memory for an answer")
        self.buf = more
        self.cap = cap
        return 0

    cdef int raw(self, const uint8_t *p, size_t n) except -1:
        self.room(n)
        if n:
            memcpy(self.buf + self.len, p, n)
        self.len += n
        return 0

    cdef int string(self, tbf_span utf8) except -1:
        self.room(tbf_out_string_bound(utf8.n))
        self.len += tbf_out_string(self.buf + self.len, utf8)
        return 0

    cdef int int64(self, int64_t v) except -1:
        self.room(TBF_OUT_NUMBER)
        self.len += tbf_out_int64(self.buf + self.len, v)
        return 0

    cdef int value(self, const tbf_point *point) except -1:
        """One value in its JSON type: decimals with the digits they came with, null for a double
        that JSON has no number for."""
        cdef char *text
        if point.type == TBF_INT64:
            self.int64(point.i64)
        elif point.type == TBF_DECIMAL:
            self.room(TBF_OUT_NUMBER)
            self.len += tbf_decimal_text(self.buf + self.len, point.i64, point.scale)
        elif point.type == TBF_DOUBLE and not isfinite(point.f64):
            self.raw(b"null", 4)
        elif point.type == TBF_DOUBLE:
            text = PyOS_double_to_string(point.f64, c"r", 0, Py_DTSF_ADD_DOT_0, NULL)
            if text == NULL:
                raise MemoryError("no memory for a number")
            try:
                self.raw(<const uint8_t *>text, len(text))
            finally:
                PyMem_Free(text)
        elif point.type == TBF_TRUE:
            self.raw(b"true", 4)
        elif point.type == TBF_FALSE:
            self.raw(b"false", 5)
        elif point.type == TBF_STRING:
            self.string(point.bytes)
        elif point.type == TBF_JSON:
            self.raw(point.bytes.p, point.bytes.n)
        else:
            self.room(4 * (point.bytes.n // 3 + 1) + 2)
            self.len += tbf_out_base64(self.buf + self.len, point.bytes)
        return 0

    cdef int points(self, const int64_t *ts, const tbf_cell *cells, size_t n,
                    bint strings) except -1 nogil:
        """{"ts":..,"value":..}, of each; strings: values as such (REST spec 7)."""
        cdef size_t done = 0, at = 0
        while True:
            self.room(tbf_points_bound(cells + at, n - at))
            self.len += tbf_points_text(self.buf + self.len, ts + at, cells + at, n - at, strings,
                                        &done)
            at += done
            if at == n:
                return 0
            with gil:
                self.unfinished(ts[at], &cells[at], strings)
            at += 1

    cdef int unfinished(self, int64_t ts, const tbf_cell *cell, bint strings) except -1:
        """A point with a double that C does not know the shortest text of."""
        cdef tbf_point point
        self.room(TBF_POINT_HEAD)
        self.len += tbf_point_head(self.buf + self.len, ts)
        if strings:
            self.raw(b'"', 1)
        point.type = TBF_DOUBLE
        point.f64 = cell.f64
        self.value(&point)
        if strings:
            self.raw(b'"', 1)
        self.raw(b"},", 2)
        return 0

    cdef bytes to_bytes(self):
        return PyBytes_FromStringAndSize(<char *>self.buf, <Py_ssize_t>self.len)


cdef int open_block(const uint8_t *p, size_t n, tbf_block *out) except -1:
    cdef tbf_span span
    cdef tbf_status status
    span.p = p
    span.n = n
    status = tbf_block_open(span, out)
    if status == TBF_EVERSION:
        raise StoreError("journal block of a newer format: start the newer version")
    if status != TBF_OK:
        raise StoreError("journal block is damaged (checksum or structure)")
    return 0


cdef int check_key_number(size_t number) except -1:
    """Tables of keys are as long as their greatest number, so a damaged one must not be taken."""
    if number > TBF_KEY_NUMBER_MAX:
        raise StoreError(f"key number {number} of a journal is damaged")
    return 0


def block_info(const uint8_t[::1] data not None):
    """Header of a block as a dict; StoreError if it is damaged."""
    cdef tbf_block block
    open_block(&data[0] if data.shape[0] else NULL, <size_t>data.shape[0], &block)
    return {
        "journal_id": block.journal_id, "epoch": block.epoch, "seq": block.seq,
        "commit_ms": block.commit_ms, "base_ms": block.base_ms, "min_ts": block.min_ts,
        "max_ts": block.max_ts, "records": block.record_count, "points": block.point_count,
        "first_key": block.first_key, "defs_bytes": block.defs.n, "rows_bytes": block.rows.n,
    }


def split_definitions(const uint8_t[::1] defs not None):
    """Names of a definitions section, in order of their numbers."""
    cdef tbf_span at, name
    cdef tbf_status status
    names = []
    at.p = &defs[0] if defs.shape[0] else NULL
    at.n = <size_t>defs.shape[0]
    while (status := tbf_next_def(&at, &name)) == TBF_OK:
        names.append((<char *>name.p)[:name.n])
    if status != TBF_MORE:
        raise StoreError("key definitions are damaged")
    return names


cdef bytes point_text(const tbf_point *point):
    cdef Text text = Text()
    text.value(point)
    return text.to_bytes()


def rows(const uint8_t[::1] data not None, keys, devices=None, int kind=-1):
    """Rows of a block in arrival order: [(device, kind, ts_ms, name, type name, JSON text), ...].

    keys: {number: name bytes} of the block's epoch, updated with the block's own definitions.
    devices: numbers to keep, None = all.  kind: of records to keep, 0 telemetry, 1 client
    attributes, -1 = both; others cost no Python object.  Dead points are left out.
    """
    cdef tbf_block block
    cdef tbf_record record
    cdef tbf_point point
    cdef tbf_status status
    cdef uint32_t number
    open_block(&data[0] if data.shape[0] else NULL, <size_t>data.shape[0], &block)
    number = block.first_key
    for name in split_definitions(
        <const uint8_t[:block.defs.n]>block.defs.p if block.defs.n else b""
    ):
        keys[number] = name
        number += 1
    out = []
    while (status := tbf_next_record(&block.rows, block.base_ms, &record)) == TBF_OK:
        if kind >= 0 and <int>record.kind != kind:
            continue
        if devices is not None and record.device not in devices:
            continue
        while (status := tbf_next_point(&record.points, &point)) == TBF_OK:
            if point.dead:
                continue
            if point.key == 0:
                name = (<char *>point.name.p)[:point.name.n]
            elif point.key in keys:
                name = keys[point.key]
            else:
                raise StoreError("journal block uses a key that nothing defines")
            out.append((record.device, <int>record.kind, record.ts_ms,
                        name.decode("utf-8", "replace"),
                        TYPE_NAMES[<int>point.type], point_text(&point)))
        if status != TBF_MORE:
            raise StoreError("journal block does not parse")
    if status != TBF_MORE:
        raise StoreError("journal block does not parse")
    return out


cdef bint is_text(uint8_t type) noexcept nogil:
    return type == TBF_STRING or type == TBF_JSON or type == TBF_BYTES


cdef void cell_of(const tbf_point *point, tbf_cell *cell) noexcept nogil:
    cell.type = <uint8_t>point.type
    cell.scale = point.scale
    cell.n = 0
    if is_text(cell.type):
        cell.p = point.bytes.p
        cell.n = <uint32_t>point.bytes.n
    elif cell.type == TBF_DOUBLE:
        cell.f64 = point.f64
    else:
        cell.i64 = point.i64


cdef void point_of(const tbf_cell *cell, tbf_point *point) noexcept nogil:
    point.type = <tbf_type>cell.type
    point.scale = cell.scale
    point.bytes.p = NULL
    point.bytes.n = 0
    point.i64 = 0
    point.f64 = 0
    if is_text(cell.type):
        point.bytes.p = cell.p
        point.bytes.n = cell.n
    elif cell.type == TBF_DOUBLE:
        point.f64 = cell.f64
    else:
        point.i64 = cell.i64
