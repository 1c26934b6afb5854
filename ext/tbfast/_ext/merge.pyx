"""Points of one series out of many chunks, in order of time, without holding them.

A chunk's column is sorted, and so are the rows that are in no chunk yet.  Sources are opened when
their time comes and closed at their end, so memory is that of the chunks, as they are stored, and
of a batch for each of those that overlap.  Where they do not, a batch is passed on as it was
decoded.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint32_t
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memcpy

from tbfast import limits
from tbfast.errors import PeerError, StoreError

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from tbfast._ext.batch cimport TBF_MORE, TBF_OK, tbf_status
from tbfast._ext.chunk cimport (
    TBF_CHUNK_BATCH,
    open_chunk,
    tbf_cell,
    tbf_chunk,
    tbf_chunk_column,
    tbf_chunk_next,
    tbf_cursor_next,
    tbf_cursor_open,
)
from tbfast._ext.deleted cimport Ranges

DAMAGED = "a chunk of the series store is damaged"
cdef uint32_t LATEST = 0xFFFFFFFF  # "run" of rows: they arrived after all chunks


cdef int by_start(const void *a, const void *b) noexcept nogil:
    cdef const piece *x = <const piece *>a
    cdef const piece *y = <const piece *>b
    if x.column != y.column:
        return -1 if x.column < y.column else 1
    if x.min_ts != y.min_ts:
        return -1 if x.min_ts < y.min_ts else 1
    return -1 if x.run < y.run else (1 if x.run > y.run else 0)


cdef bint before(const source *a, const source *b) noexcept nogil:
    """Order of the heap: the earlier point, of equal times the later arrival."""
    cdef int64_t x = a.ts[a.at]
    cdef int64_t y = b.ts[b.at]
    return x < y or (x == y and a.of.run > b.of.run)


cdef size_t undeleted(source *s) noexcept with gil:
    """Drops what is deleted from a batch; how much is left."""
    cdef Ranges gone = <Ranges>s.of.gone
    cdef size_t i, kept = 0
    for i in range(s.n):
        if not gone.has(s.ts[i]):
            s.ts[kept] = s.ts[i]
            s.cells[kept] = s.cells[i]
            kept += 1
    return kept


cdef class Merge:
    """Pieces of series: `add_*`, `sort`, then for each column `begin` and `next` until it says 0.

    first_ms, last_ms: times wanted, both included.  Chunks beyond limits.READ_CHUNK_BYTES are read
    again when their time comes.
    """

    def __cinit__(self, int64_t first_ms, int64_t last_ms):
        self.first = first_ms
        self.last = last_ms
        self.chunks = []
        self.kept = []
        self.again = []
        self.heap_cap = 16
        self.heap = <source **>malloc(self.heap_cap * sizeof(void *))
        if self.heap == NULL:
            raise MemoryError("no memory for a read")

    def __dealloc__(self):
        cdef size_t i
        for i in range(self.open):
            free(self.heap[i])
        free(self.heap)
        free(self.unused)
        free(self.pieces)

    cdef piece *_more(self) except NULL:
        cdef piece *more
        if self.count >= <size_t>limits.READ_PIECES:
            raise PeerError("too many chunks for one read; ask for fewer keys or a shorter time")
        if self.count == self.cap:
            more = <piece *>realloc(self.pieces, (2 * self.cap + 64) * sizeof(piece))
            if more == NULL:
                raise MemoryError("no memory for a read")
            self.pieces = more
            self.cap = 2 * self.cap + 64
        self.count += 1
        return &self.pieces[self.count - 1]

    cdef int add_chunk(self, bytes chunk, again) except -1:
        """The chunk of the columns that follow; again: reads it once more."""
        cdef bint keep = again is None or (
            self.chunk_bytes + <size_t>len(chunk) <= <size_t>limits.READ_CHUNK_BYTES
        )
        self.chunks.append(chunk if keep else again)
        if keep:
            self.chunk_bytes += <size_t>len(chunk)
        return 0

    cdef int add_column(self, uint32_t column, uint32_t run, const tbf_chunk_column *found,
                        size_t first, size_t at, Ranges gone) except -1:
        """A column of the chunk that was added last: `at` in it, whose columns begin at `first`."""
        cdef piece *p = self._more()
        chunk = self.chunks[len(self.chunks) - 1]
        p.column = column
        p.run = run
        p.min_ts = max(found.min_ts, self.first)
        p.max_ts = min(found.max_ts, self.last)
        p.chunk = len(self.chunks) - 1
        p.bytes = NULL
        p.nbytes = 0
        if isinstance(chunk, bytes):
            p.bytes = <const uint8_t *>PyBytes_AS_STRING(chunk)
            p.nbytes = <size_t>PyBytes_GET_SIZE(chunk)
        p.first = first
        p.at = at
        p.gone = NULL
        if gone is not None:
            self.kept.append(gone)
            p.gone = <void *>gone
        return 0

    cdef int add_rows(self, uint32_t column, const int64_t *ts, const tbf_cell *cells,
                      size_t n) except -1:
        """Rows in order of time, each time once; they stay the caller's."""
        cdef piece *p = self._more()
        p.column = column
        p.run = LATEST
        p.min_ts = ts[0]
        p.max_ts = ts[n - 1]
        p.chunk = -1
        p.bytes = NULL
        p.gone = NULL
        p.ts = ts
        p.cells = cells
        p.count = n
        return 0

    cdef void sort(self) noexcept nogil:
        """Pieces by column and first time."""
        cdef size_t i
        cdef int64_t reached = 0
        if self.count:
            qsort(self.pieces, self.count, sizeof(piece), by_start)
        for i in range(self.count):
            if i == 0 or self.pieces[i].column != self.pieces[i - 1].column:
                self.pieces[i].overlaps = False
                reached = self.pieces[i].max_ts
                continue
            self.pieces[i].overlaps = self.pieces[i].min_ts <= reached
            reached = max(reached, self.pieces[i].max_ts)

    cdef size_t column_end(self, size_t start) noexcept nogil:
        """The end of the pieces that are of the same column as the one at `start`."""
        cdef size_t end = start
        while end < self.count and self.pieces[end].column == self.pieces[start].column:
            end += 1
        return end

    cdef size_t cluster_start(self, size_t end) noexcept nogil:
        """The first of the pieces before `end` that overlap with none further before."""
        cdef size_t i = end - 1
        while self.pieces[i].overlaps:
            i -= 1
        return i

    cdef void begin(self, size_t start, size_t end) noexcept nogil:
        """Starts on the points of some pieces of one column."""
        self.next_piece = start
        self.end_piece = end
        self.taken = 0
        self.begun = False
        while self.open:
            self.open -= 1
            self._close(self.heap[self.open])

    cdef int next(self, const int64_t **ts, const tbf_cell **cells, size_t *n) except -1 nogil:
        """Some more points, ascending, valid until the next call; 0 at the end."""
        cdef source *top
        cdef size_t low, high, middle
        cdef int64_t bound
        cdef size_t i
        if self.taken:
            self._step(self.taken)
            self.taken = 0
        while True:
            while self.next_piece < self.end_piece and (
                self.open == 0
                or self.pieces[self.next_piece].min_ts <= self.heap[0].ts[self.heap[0].at]
            ):
                self._open()
            if self.open == 0:
                return 0
            top = self.heap[0]
            if not self.begun or top.ts[top.at] > self.newest:
                break
            self._step(1)  # of an earlier arrival
        low = top.at + 1
        high = top.n
        if self.open > 1 or self.next_piece < self.end_piece:
            bound = INT64_MAX
            for i in range(1, min(self.open, <size_t>3)):
                bound = min(bound, self.heap[i].ts[self.heap[i].at])
            if self.next_piece < self.end_piece:
                bound = min(bound, self.pieces[self.next_piece].min_ts)
            if top.ts[high - 1] >= bound:
                while low < high:  # the first point that is not before the others
                    middle = low + (high - low) // 2
                    if top.ts[middle] < bound:
                        low = middle + 1
                    else:
                        high = middle
                high = low
        ts[0] = &top.ts[top.at]
        cells[0] = &top.cells[top.at]
        n[0] = self.taken = high - top.at
        self.newest = top.ts[high - 1]
        self.begun = True
        return 1

    cdef void release(self) noexcept:
        """Bytes that were read again and held are not needed any more."""
        self.again.clear()
        self.again_bytes = 0

    cdef int _step(self, size_t n) except -1 nogil:
        """Leaves the first n points of the top behind."""
        cdef source *top = self.heap[0]
        top.at += n
        if top.at == top.n and self._refill(top) == 0:
            self.open -= 1
            self.heap[0] = self.heap[self.open]
            self._close(top)
        if self.open:
            self._sift_down()
        return 0

    cdef void _sift_down(self) noexcept nogil:
        cdef size_t i = 0, child
        cdef source *moved = self.heap[0]
        while True:
            child = 2 * i + 1
            if child >= self.open:
                break
            if child + 1 < self.open and before(self.heap[child + 1], self.heap[child]):
                child += 1
            if not before(self.heap[child], moved):
                break
            self.heap[i] = self.heap[child]
            i = child
        self.heap[i] = moved

    cdef int _open(self) except -1 nogil:
        """The next piece joins the heap, if it has points."""
        cdef source *s
        cdef tbf_chunk_column column
        cdef size_t i, parent
        s = self._unused()
        s.of = &self.pieces[self.next_piece]
        s.at = s.n = s.rows_at = 0
        s.held = -1
        if s.of.chunk >= 0:
            self._locate(s, &column)
            if tbf_cursor_open(&s.cursor, &column, self.first, self.last) != TBF_OK:
                with gil:
                    raise StoreError(DAMAGED)
        self.next_piece += 1
        if self._refill(s) == 0:
            self._let_go(s)
            return 0
        self.unused = NULL  # not before: an error leaves it there
        i = self.open
        self.open += 1
        while i:
            parent = (i - 1) // 2
            if not before(s, self.heap[parent]):
                break
            self.heap[i] = self.heap[parent]
            i = parent
        self.heap[i] = s
        return 0

    cdef source *_unused(self) except NULL nogil:
        """A source that is in nobody's use, and room for it in the heap."""
        cdef source **more
        if self.unused == NULL:
            self.unused = <source *>malloc(sizeof(source))
        if self.open == self.heap_cap:
            more = <source **>realloc(self.heap, 2 * self.heap_cap * sizeof(void *))
            if more != NULL:
                self.heap = more
                self.heap_cap *= 2
        if self.unused == NULL or self.open == self.heap_cap:
            with gil:
                raise MemoryError("no memory for a read")
        return self.unused

    cdef int _locate(self, source *s, tbf_chunk_column *column) except -1 nogil:
        """The column of a source's piece, in bytes that stay until it is closed."""
        cdef tbf_chunk chunk
        cdef size_t at = s.of.at
        chunk.bytes.p = s.of.bytes
        chunk.bytes.n = s.of.nbytes
        chunk.first = s.of.first
        if s.of.bytes == NULL:
            self._read_again(s, &chunk)
        if tbf_chunk_next(&chunk, &at, column) != TBF_OK:
            with gil:
                raise StoreError(DAMAGED)
        return 0

    cdef int _read_again(self, source *s, tbf_chunk *chunk) except -1 with gil:
        found = self.chunks[s.of.chunk]()
        if found is None:
            raise StoreError("a chunk of the series store is gone")
        if self.again and self.again_bytes + <size_t>len(found) > <size_t>limits.READ_CHUNK_BYTES:
            raise PeerError(
                "too much that overlaps for one read; ask for fewer keys or a shorter time"
            )
        open_chunk(<const uint8_t *>PyBytes_AS_STRING(found), <size_t>PyBytes_GET_SIZE(found),
                   chunk)
        if chunk.first != s.of.first:
            raise StoreError(DAMAGED)  # another one than before: its columns lie elsewhere
        s.held = len(self.again)
        self.again.append(found)
        self.again_bytes += <size_t>len(found)
        return 0

    cdef int _refill(self, source *s) except -1 nogil:
        """The next batch of a source; 0 at its end."""
        cdef tbf_status status = TBF_MORE
        s.at = s.n = 0
        if s.of.chunk < 0:
            s.n = min(s.of.count - s.rows_at, <size_t>TBF_CHUNK_BATCH)
            memcpy(s.ts, s.of.ts + s.rows_at, s.n * sizeof(int64_t))
            memcpy(s.cells, s.of.cells + s.rows_at, s.n * sizeof(tbf_cell))
            s.rows_at += s.n
            return s.n > 0
        while s.n == 0:
            status = tbf_cursor_next(&s.cursor, s.ts, s.cells, &s.n)
            if status != TBF_OK:
                break
            if s.of.gone != NULL:
                s.n = undeleted(s)
        if status != TBF_OK and status != TBF_MORE:
            with gil:
                raise StoreError(DAMAGED)
        return s.n > 0

    cdef void _let_go(self, source *s) noexcept nogil:
        """The bytes that were read again for a source."""
        if s.held >= 0 and not self.hold:
            with gil:
                self.again_bytes -= <size_t>len(self.again[s.held])
                self.again[s.held] = b""
                while self.again and not self.again[len(self.again) - 1]:
                    self.again.pop()

    cdef void _close(self, source *s) noexcept nogil:
        self._let_go(s)
        if self.unused == NULL:
            self.unused = s
        else:
            free(s)


cdef class Ring:
    """The last `limit` points of an ascending series."""

    def __dealloc__(self):
        free(self.ts)
        free(self.cells)

    cdef void reset(self, size_t limit) noexcept nogil:
        """Starts anew; limit is at least 1."""
        self.limit = limit
        self.total = 0
        if self.cap > limit:
            self.cap = limit

    cdef int add(self, const int64_t *ts, const tbf_cell *cells, size_t n) except -1 nogil:
        cdef size_t at, part, cap
        cdef int64_t *more_ts
        cdef tbf_cell *more_cells
        while self.total + n > self.cap and self.cap < self.limit:
            cap = min(max(2 * self.cap, <size_t>4096), self.limit)
            more_ts = <int64_t *>realloc(self.ts, cap * sizeof(int64_t))
            if more_ts != NULL:
                self.ts = more_ts
            more_cells = <tbf_cell *>realloc(self.cells, cap * sizeof(tbf_cell))
            if more_cells != NULL:
                self.cells = more_cells
            if more_ts == NULL or more_cells == NULL:
                with gil:
                    raise MemoryError("no memory for a read")
            self.cap = cap
        while n:
            at = <size_t>(self.total % self.cap)
            part = min(n, self.cap - at)
            memcpy(self.ts + at, ts, part * sizeof(int64_t))
            memcpy(self.cells + at, cells, part * sizeof(tbf_cell))
            ts += part
            cells += part
            n -= part
            self.total += part
        return 0

    cdef size_t newest(self, size_t start, int64_t *ts, tbf_cell *cells,
                       size_t most) noexcept nogil:
        """Points from the newest but `start` on, newest first; how many."""
        cdef size_t held = <size_t>min(self.total, <uint64_t>self.cap)
        cdef size_t n = min(most, held - start) if held > start else 0
        cdef size_t i, at
        for i in range(n):
            at = <size_t>((self.total - 1 - start - i) % self.cap)
            ts[i] = self.ts[at]
            cells[i] = self.cells[at]
        return n
