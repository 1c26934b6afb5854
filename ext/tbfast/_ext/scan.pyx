"""Reads of one device's series: what is stored, from everywhere, and its JSON text.

`RangeScan` gathers points from blocks fed in arrival order, journal by journal, from the head and
from chunks.
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, SIZE_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memcpy, memset

from tbfast import limits
from tbfast.errors import PeerError, StoreError

from tbfast._ext.batch cimport TBF_MORE, TBF_OK, tbf_span, tbf_status
from tbfast._ext.chunk cimport TBF_CHUNK_BATCH, tbf_cell, tbf_chunk_column
from tbfast._ext.deleted cimport Deleted, Ranges
from tbfast._ext.enough cimport Enough
from tbfast._ext.merge cimport Merge, Ring
from tbfast._ext.series cimport (
    Text,
    cell_of,
    check_key_number,
    is_text,
    open_block,
    tbf_block,
    tbf_next_point,
    tbf_next_record,
    tbf_point,
    tbf_record,
)

from tbfast._ext.series import split_definitions


cdef uint64_t NO_LIMIT = 1 << 32  # more points than a read could ever hold

cdef enum:
    ROWS_AHEAD = 65536  # taken in before they are sorted and cut
    LIMITED_AHEAD = 1024  # the same where most of them will not matter
    LIMITED_MOST = 16384  # sorting more of them takes the loop longer than a moment


cdef int by_newest(const void *a, const void *b) noexcept nogil:
    """Column, then newest time, then latest arrival first."""
    cdef const hit *x = <const hit *>a
    cdef const hit *y = <const hit *>b
    if x.column != y.column:
        return -1 if x.column < y.column else 1
    if x.ts != y.ts:
        return -1 if x.ts > y.ts else 1
    if x.commit_ms != y.commit_ms:
        return -1 if x.commit_ms > y.commit_ms else 1
    return -1 if x.arrival > y.arrival else (1 if x.arrival < y.arrival else 0)

cdef int by_oldest(const void *a, const void *b) noexcept nogil:
    """Column, then oldest time, then latest arrival first."""
    cdef const hit *x = <const hit *>a
    cdef const hit *y = <const hit *>b
    if x.column != y.column or x.ts == y.ts:
        return by_newest(a, b)
    return -1 if x.ts < y.ts else 1


cdef inline void free_cell(tbf_cell *cell) noexcept nogil:
    if is_text(cell.type):
        free(<void *>cell.p)


cdef class RangeScan:
    """Points of one device with start_ms <= ts < end_ms, at most `limit` per key.

    keys: names wanted, None = all.  kind: 0 telemetry, 1 client attributes.  Of points with the
    same key and time the one that arrived last wins.  Memory stays proportional to what the answer
    may hold: hits beyond that are sorted and cut while scanning.  Sealed chunks are kept as they
    are and decoded for the answer (`Merge`).  After an answer nothing more is to be fed.
    """

    def __cinit__(self, uint64_t device, keys, *, start_ms=None, end_ms=None, uint64_t limit=100,
                  bint ascending=False, int kind=0):
        self.device = device
        self.kind = kind
        self.start_ms = INT64_MIN if start_ms is None else start_ms
        self.bounded_end = end_ms is not None
        self.end_ms = INT64_MAX if end_ms is None else end_ms
        self.limit = limit
        self.ascending = ascending
        self.columns = {}
        self.names = []
        self.limited = limit < NO_LIMIT
        self.enough = []
        self.all_keys = keys is None
        for name in keys or ():
            self._column(name.encode() if isinstance(name, str) else name)
        self.cap = 256
        self.hits = <hit *>malloc(self.cap * sizeof(hit))
        if self.hits == NULL:
            raise MemoryError("no memory for a read")
        self.compact_at = LIMITED_AHEAD if self.limited else ROWS_AHEAD
        self.merge = Merge(self.start_ms, self._last())

    def __dealloc__(self):
        self._free_rows()
        free(self.bounds)
        free(self.key_map)

    cdef void _free_rows(self) noexcept nogil:
        cdef size_t i
        for i in range(self.count):
            free_cell(&self.hits[i].cell)
        free(self.hits)
        free(self.row_ts)
        free(self.row_cells)
        self.hits = NULL
        self.row_ts = NULL
        self.row_cells = NULL
        self.count = self.cap = 0

    def release(self):
        """Frees what was fed: a million rows take a while, so not where the scan happens to end."""
        with nogil:
            self._free_rows()
        self.merge = Merge(self.start_ms, self._last())
        self.ready = True

    cdef int64_t _last(self) noexcept:
        """The last time wanted; without meaning when none is."""
        return self.end_ms - 1 if self.bounded_end and self.end_ms > INT64_MIN else INT64_MAX

    cdef int64_t column_of(self, bytes name) except -2:
        """Column of a key, -1 if it is not wanted."""
        if self.all_keys or name in self.columns:
            return self._column(name)
        return -1

    def _column(self, name):
        column = self.columns.get(name)
        if column is None:
            column = self.columns[name] = len(self.names)
            self.names.append(name)
            self.enough.append(Enough(self.limit, self.ascending))
            self.rows_counted = False
        return column

    @property
    def device_number(self):
        return self.device

    @property
    def start(self):
        """Smallest time wanted."""
        return self.start_ms

    @property
    def end(self):
        """First time not wanted; 2^63 when there is no bound."""
        return self.end_ms if self.bounded_end else 1 << 63

    @property
    def oldest_first(self):
        """Whether the limit keeps the oldest points."""
        return self.ascending

    def has_enough(self, name, int64_t bound):
        """Whether points of a key from a time on, seen along the read, cannot matter any more.

        That is: at `bound` and earlier when the limit keeps the newest points, at `bound` and later
        when it keeps the oldest.
        """
        column = self.columns.get(name)
        if not self.limited or column is None:
            return False
        if not self.rows_counted:
            self._count_rows()
        return (<Enough>self.enough[column]).before(bound)

    cdef int _count_rows(self) except -1:
        """What is in no chunk also counts for `has_enough`."""
        cdef size_t i
        cdef Enough of
        self._compact()
        for of in self.enough:
            of.clear_rows()
        for i in range(self.count):
            of = self.enough[self.hits[i].column]
            of.add_row(self.hits[i].ts)
        self.rows_counted = True
        return 0

    cdef int added(self, uint32_t column, const tbf_chunk_column *found, Ranges gone) except -1:
        """Counts the points of a chunk that are certain to be wanted."""
        cdef Enough enough = self.enough[column]
        cdef int64_t nearest = found.min_ts if self.ascending else found.max_ts
        if not self.limited:
            return 0
        if self.limit == 1:  # the nearest point lies where the chunk begins
            if self.merge.first <= nearest <= self.merge.last and (
                gone is None or not gone.has(nearest)
            ):
                enough.add(nearest, nearest, 1)
        elif found.min_ts >= self.merge.first and found.max_ts <= self.merge.last and (
            gone is None or not gone.touch(found.min_ts, found.max_ts)
        ):
            enough.add(found.min_ts, found.max_ts, found.points)
        return 0

    def wants(self, name):
        """Whether points of this key belong into the answer."""
        return self.all_keys or name in self.columns

    def epoch(self, definitions):
        """Starts an epoch of a journal with its key table: [(first number, defs bytes), ...]."""
        free(self.key_map)
        self.key_map = NULL
        self.key_map_len = 0
        for first, defs in definitions:
            self._define(first, split_definitions(defs))

    def _define(self, uint32_t first, names):
        cdef uint32_t *more
        cdef size_t wanted = first + len(names)
        check_key_number(max(wanted, <size_t>1) - 1)
        if wanted > self.key_map_len:
            more = <uint32_t *>realloc(self.key_map, wanted * sizeof(uint32_t))
            if more == NULL:
                raise MemoryError("no memory for a key table")
            memset(more + self.key_map_len, 0, (wanted - self.key_map_len) * sizeof(uint32_t))
            self.key_map = more
            self.key_map_len = wanted
        for i, name in enumerate(names):
            if self.all_keys or name in self.columns:
                self.key_map[first + i] = self._column(name) + 1

    def feed(self, const uint8_t[::1] data not None, Deleted deleted=None):
        """The next block in arrival order of its journal, without rows that are deleted."""
        cdef tbf_block block
        cdef tbf_record record
        cdef tbf_point point
        cdef tbf_status status = TBF_OK
        cdef tbf_cell cell
        cdef uint32_t column
        cdef Py_ssize_t reach = 0
        cdef Ranges gone
        open_block(&data[0] if data.shape[0] else NULL, <size_t>data.shape[0], &block)
        self.blocks += 1
        if block.defs.n:
            self._define(block.first_key,
                         split_definitions(<const uint8_t[:block.defs.n]>block.defs.p))
        if block.max_ts < self.start_ms or (self.bounded_end and block.min_ts >= self.end_ms):
            self.skipped += 1
            return
        if deleted is not None:
            reach = deleted.reach(<object>block.epoch << 64 | block.seq)
        while True:
            with nogil:
                status = self._next_record(&block, &record)
            if status != TBF_OK:
                break
            while (status := tbf_next_point(&record.points, &point)) == TBF_OK:
                if point.dead:
                    continue
                if point.key:
                    column = self.key_map[point.key] if point.key < self.key_map_len else 0
                else:
                    name = (<char *>point.name.p)[:point.name.n]
                    column = (self._column(name) + 1
                              if self.all_keys or name in self.columns else 0)
                if column and reach:
                    gone = deleted.ranges(self.names[column - 1], reach)
                    if gone is not None and gone.has(record.ts_ms):
                        continue
                if column:
                    self.arrival += 1
                    cell_of(&point, &cell)
                    self.add(column - 1, record.ts_ms, block.commit_ms,
                             <uint64_t>block.journal_id << 40 | self.arrival, &cell)
            if status != TBF_MORE:
                break
        if status != TBF_MORE:
            raise StoreError("journal block does not parse")
        if self.count >= self.compact_at:
            self._compact()

    cdef tbf_status _next_record(self, tbf_block *block, tbf_record *record) noexcept nogil:
        """The next record of the device inside the range."""
        cdef tbf_status status
        while True:
            status = tbf_next_record(&block.rows, block.base_ms, record)
            if status != TBF_OK:
                return status
            if (record.device == self.device and <int>record.kind == self.kind
                    and record.ts_ms >= self.start_ms
                    and (not self.bounded_end or record.ts_ms < self.end_ms)):
                return TBF_OK

    cdef int reserve(self, size_t rows) except -1:
        """Room for so many more, so that they are not moved over and over; only pages that are
        used cost memory."""
        cdef hit *more
        cdef size_t wanted = min(self.count + rows, <size_t>limits.READ_ROWS)
        if wanted > self.cap and self.limit > LIMITED_MOST:
            more = <hit *>realloc(self.hits, wanted * sizeof(hit))
            if more == NULL:
                raise MemoryError("no memory for a read")
            self.hits = more
            self.cap = wanted
        return 0

    cdef int add(self, uint32_t column, int64_t ts, int64_t commit_ms, uint64_t arrival,
                 const tbf_cell *cell) except -1:
        """One point; of equal times the later commit, then the later arrival wins."""
        cdef hit *more
        cdef hit *h
        cdef uint8_t *copy
        if not self.wants_time(column, ts):
            return 0
        if self.limited and self.compact_at <= self.count <= <size_t>LIMITED_MOST:
            self._compact()
        if self.count == <size_t>limits.READ_ROWS:
            self._compact()
            if self.count > <size_t>limits.READ_ROWS // 4 * 3:  # or the next one is near
                raise PeerError("too many points that are not sealed yet for one read; ask for "
                                "fewer keys or a shorter time")
        if self.count == self.cap:
            more = <hit *>realloc(self.hits, 2 * self.cap * sizeof(hit))
            if more == NULL:
                raise MemoryError("no memory for a read")
            self.hits = more
            self.cap *= 2
        h = &self.hits[self.count]
        h.ts = ts
        h.commit_ms = commit_ms
        h.arrival = arrival
        h.column = column
        h.cell = cell[0]
        if is_text(cell.type):
            copy = <uint8_t *>malloc(<size_t>cell.n + 1)
            if copy == NULL:
                raise MemoryError("no memory for a read")
            if cell.n:  # an empty text may come without a pointer
                memcpy(copy, cell.p, cell.n)
            h.cell.p = copy
        self.count += 1
        self.rows_counted = False
        return 0

    cdef bint wants_time(self, uint32_t column, int64_t ts) noexcept nogil:
        """Whether a point could be among the `limit` of its column, as far as is known."""
        cdef bound *b
        if column >= self.bound_count:
            return True
        b = &self.bounds[column]
        return not b.full or (ts <= b.ts if self.ascending else ts >= b.ts)

    cdef int _more_bounds(self) except -1:
        """One for each column there is."""
        cdef size_t wanted = len(self.names)
        cdef bound *more
        if wanted > self.bound_count:
            more = <bound *>realloc(self.bounds, wanted * sizeof(bound))
            if more == NULL:
                raise MemoryError("no memory for a read")
            memset(more + self.bound_count, 0, (wanted - self.bound_count) * sizeof(bound))
            self.bounds = more
            self.bound_count = wanted
        return 0

    cdef int _compact(self) except -1:
        """Sorts, keeps the winner of each time, cuts each column at the limit."""
        cdef size_t i, kept = 0
        cdef uint64_t in_column = 0
        cdef hit *h
        cdef hit *last
        if self.limited:
            self._more_bounds()
        with nogil:
            qsort(self.hits, self.count, sizeof(hit), by_oldest if self.ascending else by_newest)
            for i in range(self.count):
                h = &self.hits[i]
                last = &self.hits[kept - 1] if kept else NULL
                if last != NULL and last.column != h.column:
                    in_column = 0
                if in_column >= self.limit or (
                    last != NULL and last.column == h.column and last.ts == h.ts
                ):
                    free_cell(&h.cell)
                    continue
                self.hits[kept] = h[0]
                kept += 1
                in_column += 1
                if in_column == self.limit and h.column < self.bound_count:
                    self.bounds[h.column].full = True
                    self.bounds[h.column].ts = h.ts
            self.count = kept
            self.compact_at = 2 * kept + (
                LIMITED_AHEAD if self.limited and kept < LIMITED_MOST // 2 else ROWS_AHEAD
            )
        return 0

    cdef int prepare(self) except -1:
        """Gives the hits to the merge, oldest first."""
        cdef size_t i, k, start = 0, n
        if self.ready:
            return 0
        self._compact()
        self.row_ts = <int64_t *>malloc((self.count + 1) * sizeof(int64_t))
        self.row_cells = <tbf_cell *>malloc((self.count + 1) * sizeof(tbf_cell))
        if self.row_ts == NULL or self.row_cells == NULL:
            raise MemoryError("no memory for a read")
        while start < self.count:
            n = 1
            while start + n < self.count and (
                self.hits[start + n].column == self.hits[start].column
            ):
                n += 1
            for i in range(n):
                k = start + i if self.ascending else start + n - 1 - i
                self.row_ts[start + i] = self.hits[k].ts
                self.row_cells[start + i] = self.hits[k].cell
            self.merge.add_rows(self.hits[start].column, self.row_ts + start,
                                self.row_cells + start, n)
            start += n
        self.merge.sort()
        self.ready = True
        return 0

    def to_json(self, bint strings=False, size_t max_bytes=SIZE_MAX):
        """{"key":[{"ts":..,"value":..},..],..}: keys in order of first mention.

        strings: numbers, booleans and nested JSON as strings (REST spec 7).  PeerError: the text
        would be longer than max_bytes.
        """
        cdef Text text = Text()
        cdef Ring ring = Ring()
        cdef size_t start = 0, end, before, opened
        self.prepare()
        text.raw(b"{", 1)
        while start < self.merge.count:
            end = self.merge.column_end(start)
            before = text.len
            if before > 1:
                text.raw(b",", 1)
            self.key(text, self.merge.pieces[start].column)
            opened = text.len
            if self.ascending:
                self._oldest_json(text, start, end, strings, max_bytes)
            else:
                self._newest_json(text, start, end, strings, max_bytes, ring)
            if text.len == opened:
                text.len = before  # all its points are deleted
            else:
                text.buf[text.len - 1] = c"]"
            start = end
        text.raw(b"}", 1)
        return text.to_bytes()

    cdef int key(self, Text text, size_t column) except -1:
        """Opens the points of a key."""
        cdef tbf_span name
        raw_name = self.names[column]
        name.p = <const uint8_t *><const char *>raw_name
        name.n = <size_t>len(raw_name)
        text.string(name)
        text.raw(b":[", 2)
        return 0

    cdef int _oldest_json(self, Text text, size_t start, size_t end, bint strings,
                          size_t max_bytes) except -1:
        cdef const int64_t *ts
        cdef const tbf_cell *cells
        cdef size_t n
        cdef uint64_t left = self.limit
        with nogil:
            self.merge.begin(start, end)
            while left and self.merge.next(&ts, &cells, &n):
                n = <size_t>min(left, <uint64_t>n)
                left -= n
                text.points(ts, cells, n, strings)
                if text.len > max_bytes:
                    with gil:
                        raise too_long(max_bytes)
        return 0

    cdef int _newest_json(self, Text text, size_t start, size_t end, bint strings,
                          size_t max_bytes, Ring ring) except -1:
        """Chunks are read forwards: those that overlap are gathered, then told backwards."""
        cdef int64_t out_ts[TBF_CHUNK_BATCH]
        cdef tbf_cell out_cells[TBF_CHUNK_BATCH]
        cdef size_t n, told
        cdef uint64_t left = self.limit
        self.merge.hold = True
        while end > start and left:
            self._gather(ring, start, &end, left)
            told = 0
            with nogil:
                while n := ring.newest(told, out_ts, out_cells, TBF_CHUNK_BATCH):
                    told += n
                    text.points(out_ts, out_cells, n, strings)
                    if text.len > max_bytes:
                        with gil:
                            raise too_long(max_bytes)
            left -= told
            self.merge.release()
        self.merge.hold = False
        return 0

    cdef int _gather(self, Ring ring, size_t start, size_t *end, uint64_t most) except -1:
        """The newest points before *end, `most` of them, with what overlaps; moves *end."""
        cdef const int64_t *ts
        cdef const tbf_cell *cells
        cdef size_t n
        with nogil:
            start = self.merge.cluster_start(end[0])
            self.merge.begin(start, end[0])
            ring.reset(<size_t>most)
            while self.merge.next(&ts, &cells, &n):
                ring.add(ts, cells, n)
        end[0] = start
        return 0

    def settle(self):
        """Makes the newest points, `limit` of each key, the only hits."""
        cdef RangeScan answer = RangeScan(self.device, None, limit=self.limit)
        cdef Ring ring = Ring()
        cdef int64_t ts
        cdef tbf_cell cell
        cdef size_t start = 0, first, end, told
        cdef uint32_t column
        cdef uint64_t left
        self.prepare()
        self.merge.hold = True
        while start < self.merge.count:
            first = start
            start = end = self.merge.column_end(first)
            column = self.merge.pieces[first].column
            left = self.limit
            while end > first and left:
                self._gather(ring, first, &end, left)
                told = 0
                while ring.newest(told, &ts, &cell, 1):
                    answer.add(column, ts, 0, 0, &cell)
                    told += 1
                left -= told
                self.merge.release()
        self.hits, answer.hits = answer.hits, self.hits
        self.count, answer.count = answer.count, self.count
        self.cap, answer.cap = answer.cap, self.cap
        free(self.row_ts)
        free(self.row_cells)
        self.row_ts = NULL
        self.row_cells = NULL
        self.merge = Merge(self.merge.first, self.merge.last)
        self.ready = False
        self._compact()

    def key_names(self):
        """Names that had at least one point in what was fed (with limit >= 1)."""
        cdef size_t i
        self.settle()
        return sorted({self.names[self.hits[i].column].decode() for i in range(self.count)})


cdef object too_long(size_t max_bytes):
    return PeerError(f"the answer is longer than {max_bytes} bytes; ask for fewer keys, a shorter "
                     "time or a lower limit")
