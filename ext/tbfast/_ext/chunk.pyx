"""Series chunks: the points of one device and run, column by column (layout in tbf_chunk.h)."""

from libc.stdint cimport INT64_MAX, INT64_MIN
from libc.stdlib cimport calloc, free, malloc, realloc

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

import os

from tbfast._ext.batch cimport (
    TBF_BYTES, TBF_DECIMAL, TBF_DOUBLE, TBF_ENOSPACE, TBF_EVERSION, TBF_FALSE, TBF_INT64, TBF_JSON,
    TBF_MORE, TBF_OK, TBF_STRING, TBF_TRUE,
)
from tbfast.errors import LocalError, StoreError

KINDS = (
    "INT64", "DECIMAL", "NUMBER", "FORMS", "DOUBLE", "BOOL", "STRING", "JSON", "BYTES", "MIXED",
)


cdef class ChunkWriter:
    """Working memory and output buffer of one writer; write() leaves the chunk in buf[:len].

    seed: 16 random bytes of the process for the dictionary's hash, None = draw them.
    """

    def __cinit__(self, seed=None):
        if seed is None:
            seed = os.urandom(16)
        self.scratch.seed[0] = int.from_bytes(seed[:8], "little")
        self.scratch.seed[1] = int.from_bytes(seed[8:16], "little")
        self.cap = 65536
        self.buf = <uint8_t *>malloc(self.cap)
        if self.buf == NULL:
            raise MemoryError("no memory for a chunk")

    def __dealloc__(self):
        free(self.buf)

    cdef int write(self, const tbf_column *columns, size_t count) except -1:
        """LocalError if the columns are not as tbf_column wants them; the caller's mistake."""
        self.len = 0
        with nogil:
            self.append(columns, count)
        return 0

    cdef int append(self, const tbf_column *columns, size_t count) except -1 nogil:
        """The same, after what is there."""
        cdef size_t more = 0
        cdef tbf_status status = tbf_chunk_write(
            self.buf + self.len, self.cap - self.len, columns, count, &self.scratch, &more)
        if status == TBF_ENOSPACE:
            self._grow(max(2 * self.cap, self.len + tbf_chunk_bound(columns, count)))
            status = tbf_chunk_write(
                self.buf + self.len, self.cap - self.len, columns, count, &self.scratch, &more)
        if status != TBF_OK:
            with gil:
                raise LocalError("columns of a chunk must be neither empty nor too long, with "
                                 "times that ascend and values of known types")
        self.len += more
        return 0

    cdef int _grow(self, size_t cap) except -1 nogil:
        cdef uint8_t *more = <uint8_t *>realloc(self.buf, cap)
        if more == NULL:
            with gil:
                raise MemoryError("no memory for a chunk")
        self.buf = more
        self.cap = cap
        return 0


cdef int set_cell(tbf_cell *cell, type_name, value, list kept) except -1:
    if type_name == "INT64":
        cell.type = TBF_INT64
        cell.i64 = value
    elif type_name == "DECIMAL":
        cell.type = TBF_DECIMAL
        cell.i64, cell.scale = value
    elif type_name == "DOUBLE":
        cell.type = TBF_DOUBLE
        cell.f64 = value
    elif type_name == "BOOL":
        cell.type = TBF_TRUE if value else TBF_FALSE
    elif type_name in ("STRING", "JSON", "BYTES"):
        cell.type = {"STRING": TBF_STRING, "JSON": TBF_JSON, "BYTES": TBF_BYTES}[type_name]
        text = value if type_name == "BYTES" else value.encode()
        kept.append(text)
        cell.p = <const uint8_t *>PyBytes_AS_STRING(text)
        cell.n = <uint32_t>PyBytes_GET_SIZE(text)
    else:
        raise LocalError(f"no type {type_name!r}")
    return 0


cdef class Columns:
    """Columns in C memory, from [(key, [(ts_ms, type name, value), ...]), ...].

    Values: INT64 int, DECIMAL (mantissa, scale), DOUBLE float, BOOL bool, STRING and JSON str,
    BYTES bytes.  Columns with equal times share one array, as the sealer's do.
    """

    def __cinit__(self, columns):
        cdef int64_t *ts
        cdef tbf_cell *cells
        cdef size_t at, n
        self.kept = []
        self.columns = <tbf_column *>calloc(len(columns) + 1, sizeof(tbf_column))
        if self.columns == NULL:
            raise MemoryError("no memory for columns")
        for key, points in columns:
            n = <size_t>len(points)
            self.columns[self.count].key = key
            self.columns[self.count].n = <uint32_t>n
            ts = <int64_t *>calloc(n + 1, sizeof(int64_t))
            cells = <tbf_cell *>calloc(n + 1, sizeof(tbf_cell))
            self.columns[self.count].ts = ts
            self.columns[self.count].cells = cells
            self.count += 1
            if ts == NULL or cells == NULL:
                raise MemoryError("no memory for columns")
            for at, (stamp, type_name, value) in enumerate(points):
                ts[at] = stamp
                set_cell(&cells[at], type_name, value, self.kept)

    def __dealloc__(self):
        cdef size_t c
        for c in range(self.count):
            free(<void *>self.columns[c].ts)
            free(<void *>self.columns[c].cells)
        free(self.columns)

    def encode(self, ChunkWriter writer not None):
        """Chunk bytes; LocalError for columns that cannot be written."""
        writer.write(self.columns, self.count)
        return PyBytes_FromStringAndSize(<char *>writer.buf, <Py_ssize_t>writer.len)


def encode(columns):
    """Chunk of [(key, [(ts_ms, type name, value), ...]), ...]; see Columns."""
    return Columns(columns).encode(ChunkWriter())


cdef int damaged(tbf_status status) except -1:
    if status == TBF_EVERSION:
        raise StoreError("series chunk of a newer format: start the newer version")
    raise StoreError("series chunk is damaged (checksum or structure)")


cdef int open_chunk(const uint8_t *p, size_t n, tbf_chunk *out) except -1:
    cdef tbf_span span
    cdef tbf_status status
    span.p = p
    span.n = n
    status = tbf_chunk_open(span, out)
    if status != TBF_OK:
        damaged(status)
    return 0


cdef object value_of(const tbf_cell *cell):
    if cell.type == TBF_INT64:
        return ("INT64", cell.i64)
    if cell.type == TBF_DECIMAL:
        return ("DECIMAL", (cell.i64, cell.scale))
    if cell.type == TBF_DOUBLE:
        return ("DOUBLE", cell.f64)
    if cell.type == TBF_TRUE or cell.type == TBF_FALSE:
        return ("BOOL", cell.type == TBF_TRUE)
    text = PyBytes_FromStringAndSize(<const char *>cell.p, cell.n)
    if cell.type == TBF_BYTES:
        return ("BYTES", text)
    try:
        return ("STRING" if cell.type == TBF_STRING else "JSON", text.decode())
    except UnicodeDecodeError:
        raise StoreError("series chunk is damaged (text is not UTF-8)") from None


cdef class _Reader:
    """Cursor over one chunk; keeps the bytes it points into."""

    cdef const uint8_t[::1] data
    cdef tbf_chunk chunk
    cdef tbf_chunk_column column
    cdef size_t at
    cdef tbf_cursor cursor
    cdef int64_t ts[TBF_CHUNK_BATCH]
    cdef tbf_cell cells[TBF_CHUNK_BATCH]
    cdef size_t n

    def __cinit__(self, const uint8_t[::1] data not None):
        self.data = data
        open_chunk(&data[0] if data.shape[0] else NULL, <size_t>data.shape[0], &self.chunk)
        self.at = self.chunk.first

    cdef bint next_column(self) except -1:
        cdef tbf_status status = tbf_chunk_next(&self.chunk, &self.at, &self.column)
        if status != TBF_OK and status != TBF_MORE:
            damaged(status)
        return status == TBF_OK

    cdef int seek(self, int64_t first, int64_t last) except -1:
        cdef tbf_status status = tbf_cursor_open(&self.cursor, &self.column, first, last)
        if status != TBF_OK:
            damaged(status)
        return 0

    cdef bint next_batch(self) except -1:
        cdef tbf_status status
        with nogil:
            status = tbf_cursor_next(&self.cursor, self.ts, self.cells, &self.n)
        if status != TBF_OK and status != TBF_MORE:
            damaged(status)
        return status == TBF_OK


def decode(data, *, int64_t first_ms=INT64_MIN, int64_t last_ms=INT64_MAX):
    """[(key, [(ts_ms, type name, value), ...]), ...] with first_ms <= ts <= last_ms.

    StoreError if the chunk is damaged.  A column without points in the range is still listed.
    """
    cdef _Reader reader = _Reader(data)
    cdef size_t i
    columns = []
    while reader.next_column():
        points = []
        reader.seek(first_ms, last_ms)
        while reader.next_batch():
            for i in range(reader.n):
                points.append((reader.ts[i], *value_of(&reader.cells[i])))
        columns.append((reader.column.key, points))
    return columns


def count_points(data, *, int64_t first_ms=INT64_MIN, int64_t last_ms=INT64_MAX):
    """Decodes every column and returns the number of points in the range; StoreError."""
    cdef _Reader reader = _Reader(data)
    cdef uint64_t points = 0
    while reader.next_column():
        reader.seek(first_ms, last_ms)
        while reader.next_batch():
            points += reader.n
    return points


def aggregate(data, uint32_t key, *, int64_t first_ms=INT64_MIN, int64_t last_ms=INT64_MAX):
    """{"count", "numbers", "min", "max", "sum", "avg"} of a column; None if it is not there.

    min, max and sum are (type name, value): INT64 or DECIMAL if exact, else DOUBLE; None without
    numbers.  avg is a float.  NaN counts as a point, not as a number.
    """
    cdef _Reader reader = _Reader(data)
    cdef tbf_agg agg
    cdef tbf_cell cell
    while reader.next_column():
        if reader.column.key != key:
            continue
        tbf_agg_init(&agg)
        reader.seek(first_ms, last_ms)
        while reader.next_batch():
            tbf_agg_add(&agg, reader.cells, reader.n)
        return {
            "count": agg.count,
            "numbers": agg.numbers,
            "min": value_of(&cell) if tbf_agg_min(&agg, &cell) else None,
            "max": value_of(&cell) if tbf_agg_max(&agg, &cell) else None,
            "sum": value_of(&cell) if tbf_agg_sum(&agg, &cell) else None,
            "avg": tbf_agg_total(&agg) / <double>agg.numbers if agg.numbers else None,
        }
    return None


def describe(data):
    """What the heads say, without decoding: [(key, kind, points, min_ts, max_ts, value bytes)]."""
    cdef _Reader reader = _Reader(data)
    columns = []
    while reader.next_column():
        columns.append((reader.column.key, KINDS[<int>reader.column.kind], reader.column.points,
                        reader.column.min_ts, reader.column.max_ts, reader.column.values.n))
    return columns
