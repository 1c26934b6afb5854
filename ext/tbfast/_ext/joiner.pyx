"""Chunks of several runs made into few (design section 3).

Of equal times the row of the latest run stays, and rows that were deleted by then are left out.
The new chunks carry the number of the latest run in them: of rows in other chunks they win over the
same ones as before.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort, realloc

from tbfast.errors import StoreError

from tbfast._ext.batch cimport TBF_MORE, TBF_OK, tbf_status
from tbfast._ext.chunk cimport (
    open_chunk,
    tbf_cell,
    tbf_chunk,
    tbf_chunk_column,
    tbf_chunk_next,
    tbf_cursor,
    tbf_cursor_next,
    tbf_cursor_open,
)
from tbfast._ext.deleted cimport Deleted, Ranges
from tbfast._ext.packer cimport Packer, Totals, by_time, timed

cdef struct piece:
    tbf_chunk_column column
    uint32_t run
    uint32_t arrival   # of columns with the same run: parts of a long series, in order

cdef int by_series(const void *a, const void *b) noexcept nogil:
    cdef const piece *x = <const piece *>a
    cdef const piece *y = <const piece *>b
    if x.column.key != y.column.key:
        return -1 if x.column.key < y.column.key else 1
    if x.run != y.run:
        return -1 if x.run < y.run else 1
    return -1 if x.arrival < y.arrival else 1


cdef class Joiner:
    """Joins one device's chunks at a time: `begin`, `add` in order of runs, `take`.

    ``points`` and ``nbytes`` are of what was added since the last `take`; ``totals`` of all that
    came out.
    """

    cdef Packer packer
    cdef readonly Totals totals
    cdef readonly uint64_t points, nbytes
    cdef uint64_t device
    cdef uint32_t run, first_run
    cdef Deleted deleted
    cdef object names
    cdef list chunks        # (key, chunk) as they are stored; the pieces point into them
    cdef piece *pieces
    cdef size_t count, cap
    cdef tbf_cell *spare    # cells in order of arrival while they are sorted
    cdef size_t spare_cap

    def __cinit__(self):
        self.packer = Packer()
        self.totals = Totals()
        self.chunks = []
        self.cap = 256
        self.pieces = <piece *>malloc(self.cap * sizeof(piece))
        if self.pieces == NULL:
            raise MemoryError("no memory for joining")

    def __dealloc__(self):
        free(self.pieces)
        free(self.spare)

    def begin(self, uint64_t device, names, Deleted deleted=None):
        """The next device; names {key number: name} are only used if something was deleted."""
        self.device = device
        self.names = names
        self.deleted = deleted

    def add(self, uint32_t run, bytes key not None, bytes chunk not None):
        """A chunk of the run, stored under `key`; StoreError when it is damaged."""
        cdef tbf_chunk opened
        cdef tbf_chunk_column column
        cdef tbf_status status
        cdef size_t at, count = self.count  # counted when all is there, or the chunk is not kept
        cdef void *more
        open_chunk(<const uint8_t *>PyBytes_AS_STRING(chunk), <size_t>PyBytes_GET_SIZE(chunk),
                   &opened)
        at = opened.first
        while (status := tbf_chunk_next(&opened, &at, &column)) == TBF_OK:
            if count == self.cap:
                more = realloc(self.pieces, 2 * self.cap * sizeof(piece))
                if more == NULL:
                    raise MemoryError("no memory for joining")
                self.pieces = <piece *>more
                self.cap *= 2
            self.pieces[count].column = column
            self.pieces[count].run = run
            self.pieces[count].arrival = <uint32_t>count
            count += 1
        if status != TBF_MORE:
            raise StoreError("series chunk is damaged (structure)")
        if not self.chunks:
            self.first_run = run
        self.run = run
        self.points += opened.points
        self.nbytes += <uint64_t>PyBytes_GET_SIZE(chunk)
        self.chunks.append((key, chunk))
        self.count = count
        if opened.min_ts < self.totals.min_ts and self.deleted is None:
            self.totals.min_ts = opened.min_ts
        if opened.max_ts > self.totals.max_ts and self.deleted is None:
            self.totals.max_ts = opened.max_ts

    def take(self):
        """[(key, chunk), ...] of what was added, in order of keys; as it was if of one run."""
        out = []
        if self.chunks and self.first_run == self.run and self.deleted is None:
            out += sorted(self.chunks)
            self.totals.points += self.points
            self.totals.nbytes += self.nbytes
        elif self.chunks:
            self._join()
            self.packer.pack(self.device)
            self.packer.give(self.run, [self.totals], [out], None)
            out.sort()
        self.chunks.clear()
        self.count = self.points = self.nbytes = 0
        return out

    cdef int _join(self) except -1:
        """Fills the packer from the pieces."""
        cdef size_t i = 0, n
        cdef uint32_t key
        qsort(self.pieces, self.count, sizeof(piece), by_series)
        self.packer.reserve(self.points, self.count)
        while i < self.count:
            key = self.pieces[i].column.key
            n = 0
            while i < self.count and self.pieces[i].column.key == key:
                n = self._decode(&self.pieces[i], n)
                i += 1
            self.packer.add(key, self._ordered(n))
        return 0

    cdef size_t _decode(self, piece *p, size_t n) except? 0:
        """Appends the points of a column that are not deleted to the n before; the new n."""
        cdef int64_t *ts = self.packer.ts + self.packer.rows
        cdef tbf_cell *cells = self.packer.cells + self.packer.rows
        cdef tbf_cursor cursor
        cdef tbf_status status
        cdef size_t more = 0, i, kept
        cdef Ranges gone = None
        cdef Py_ssize_t reach
        if self.deleted is not None:
            reach = self.deleted.reach(p.run)
            name = self.names.get(p.column.key)
            if reach and name is not None:
                gone = self.deleted.ranges(name, reach)
        with nogil:
            status = tbf_cursor_open(&cursor, &p.column, INT64_MIN, INT64_MAX)
            while status == TBF_OK:
                status = tbf_cursor_next(&cursor, ts + n, cells + n, &more)
                if status != TBF_OK:
                    break
                if gone is not None:
                    kept = n
                    for i in range(n, n + more):
                        if not gone.has(ts[i]):
                            ts[kept] = ts[i]
                            cells[kept] = cells[i]
                            kept += 1
                    n = kept
                else:
                    n += more
        if status != TBF_MORE:
            raise StoreError("series chunk is damaged (values)")
        return n

    cdef size_t _ordered(self, size_t n) except? 0:
        """Brings n rows in order of time, of equal times the last one stays; how many are left."""
        cdef int64_t *ts = self.packer.ts + self.packer.rows
        cdef tbf_cell *cells = self.packer.cells + self.packer.rows
        cdef timed *order
        cdef size_t i, kept = 0
        cdef bint ascending = True
        with nogil:
            for i in range(1, n):
                if ts[i] <= ts[i - 1]:
                    ascending = False
                    break
        if ascending:
            return n
        self.packer.reserve_order(n)
        order = self.packer.order
        if n > self.spare_cap:
            free(self.spare)
            self.spare_cap = 0
            self.spare = <tbf_cell *>malloc(n * sizeof(tbf_cell))
            if self.spare == NULL:
                raise MemoryError("no memory for joining")
            self.spare_cap = n
        with nogil:
            for i in range(n):
                order[i].ts = ts[i]
                order[i].order = 0  # runs came in order
                order[i].arrival = <uint32_t>i
                self.spare[i] = cells[i]
            qsort(order, n, sizeof(timed), by_time)
            for i in range(n):
                if i + 1 < n and order[i + 1].ts == order[i].ts:
                    continue
                ts[kept] = order[i].ts
                cells[kept] = self.spare[order[i].arrival]
                kept += 1
        return kept
