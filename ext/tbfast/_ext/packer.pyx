"""Which chunks the columns of one device go to (design section 3).

Small series, and larger ones that share their times with another, go into the device's common
chunk (key 0), where shared times are written once; the rest earn a chunk of their own, so that
reading one key does not fetch the others.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp

import struct

from tbfast._ext.chunk cimport (
    TBF_CHUNK_BATCH,
    TBF_CHUNK_POINTS_MAX,
    ChunkWriter,
    tbf_cell,
    tbf_column,
)

cdef enum:
    OWN_POINTS = 64         # a series with so many points may have a chunk of its own ...
    ALWAYS_OWN_POINTS = 2048  # ... and with so many it always has

CHUNK_KEY = struct.Struct(">QII")  # device, key number or 0, run


cdef int by_time(const void *a, const void *b) noexcept nogil:
    """Time, then commit, then arrival."""
    cdef const timed *x = <const timed *>a
    cdef const timed *y = <const timed *>b
    if x.ts != y.ts:
        return -1 if x.ts < y.ts else 1
    if x.order != y.order:
        return -1 if x.order < y.order else 1
    return -1 if x.arrival < y.arrival else (1 if x.arrival > y.arrival else 0)


cdef class Totals:
    """What went into chunks; min_ts > max_ts before the first point."""

    def __cinit__(self):
        self.min_ts = INT64_MAX
        self.max_ts = INT64_MIN


cdef class Packer:
    """Memory for the columns of one device, used again for the next.

    Whoever fills it writes the next series at ts[rows:] and cells[rows:], then calls `add`; in the
    end `pack` writes all of them.  TBF_CHUNK_BATCH rows more than reserved may be written to.
    """

    def __cinit__(self):
        self.writer = ChunkWriter()

    def __dealloc__(self):
        free(self.ts)
        free(self.cells)
        free(self.order)
        free(self.columns)
        free(self.common)

    cdef int reserve(self, size_t rows, size_t columns) except -1:
        """Room for the next device; what was added is forgotten."""
        self.rows = self.count = 0
        if rows > self.row_cap or self.ts == NULL:
            free(self.ts)
            free(self.cells)
            self.row_cap = 0
            self.ts = <int64_t *>malloc((rows + TBF_CHUNK_BATCH) * sizeof(int64_t))
            self.cells = <tbf_cell *>malloc((rows + TBF_CHUNK_BATCH) * sizeof(tbf_cell))
            if self.ts == NULL or self.cells == NULL:
                raise MemoryError("no memory for columns")
            self.row_cap = rows
        # A series above the codec's bound becomes several columns.
        columns += rows // TBF_CHUNK_POINTS_MAX
        if columns > self.column_cap:
            free(self.columns)
            free(self.common)
            self.column_cap = 0
            self.columns = <tbf_column *>malloc(columns * sizeof(tbf_column))
            self.common = <tbf_column *>malloc(columns * sizeof(tbf_column))
            if self.columns == NULL or self.common == NULL:
                raise MemoryError("no memory for columns")
            self.column_cap = columns
        return 0

    cdef int reserve_order(self, size_t rows) except -1:
        """Room to sort that many rows."""
        if rows > self.order_cap:
            free(self.order)
            self.order_cap = 0
            self.order = <timed *>malloc(rows * sizeof(timed))
            if self.order == NULL:
                raise MemoryError("no memory for sorting")
            self.order_cap = rows
        return 0

    cdef void add(self, uint32_t key, size_t n) noexcept nogil:
        """The next n rows are a series, its times strictly ascending."""
        cdef size_t part
        while n:
            part = n if n < TBF_CHUNK_POINTS_MAX else TBF_CHUNK_POINTS_MAX
            self.columns[self.count].key = key
            self.columns[self.count].n = <uint32_t>part
            self.columns[self.count].ts = self.ts + self.rows
            self.columns[self.count].cells = self.cells + self.rows
            self.count += 1
            self.rows += part
            n -= part

    cdef size_t pack(self, uint64_t device, uint32_t run, Totals totals, list out) except? 0:
        """Appends (key, chunk) for what was added; returns the bytes of the chunks."""
        cdef size_t total = 0, c = 0, part, common = 0
        cdef tbf_column *column
        for c in range(self.count):
            column = &self.columns[c]
            totals.points += column.n
            totals.min_ts = min(totals.min_ts, column.ts[0])
            totals.max_ts = max(totals.max_ts, column.ts[column.n - 1])
        c = 0
        while c < self.count:
            part = 1  # parts of one series stay together
            while c + part < self.count and self.columns[c + part].key == self.columns[c].key:
                part += 1
            if part > 1 or self._earns_own(c):
                total += self._write(device, self.columns[c].key, run, &self.columns[c], part,
                                     totals, out)
            else:
                self.common[common] = self.columns[c]
                common += 1
            c += part
        if common:
            total += self._write(device, 0, run, self.common, common, totals, out)
        return total

    cdef bint _earns_own(self, size_t c) noexcept nogil:
        cdef size_t other
        cdef tbf_column *mine = &self.columns[c]
        if mine.n < OWN_POINTS:
            return False
        if mine.n >= ALWAYS_OWN_POINTS:
            return True
        for other in range(self.count):
            if other != c and self.columns[other].n == mine.n and memcmp(
                self.columns[other].ts, mine.ts, mine.n * sizeof(int64_t)
            ) == 0:
                return False
        return True

    cdef size_t _write(self, uint64_t device, uint32_t key, uint32_t run, tbf_column *columns,
                       size_t count, Totals totals, list out) except 0:
        cdef ChunkWriter writer = self.writer
        writer.write(columns, count)
        totals.nbytes += writer.len
        out.append((CHUNK_KEY.pack(device, key, run),
                    PyBytes_FromStringAndSize(<char *>writer.buf, <Py_ssize_t>writer.len)))
        return writer.len
