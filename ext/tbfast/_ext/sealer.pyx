"""From a frozen head to chunks, and from chunks to range reads (design section 3).

Per device: points of each series in time order, of equal times the one committed last (then the
one that arrived last), and then columns, which `packer` puts into chunks.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy

from tbfast.errors import StoreError

from tbfast._ext.batch cimport (
    TBF_BYTES,
    TBF_JSON,
    TBF_MORE,
    TBF_OK,
    TBF_STRING,
    tbf_span,
    tbf_status,
)
from tbfast._ext.chunk cimport (
    tbf_cell,
    tbf_chunk,
    tbf_chunk_column,
    tbf_chunk_next,
    tbf_chunk_open,
)
from tbfast._ext.deleted cimport Deleted, Ranges
from tbfast._ext.head cimport Head, head_row, head_series, order_of, prefetch
from tbfast._ext.packer cimport Packer, Totals, by_time
from tbfast._ext.scan cimport RangeScan

cdef extern from "tbf_sort.h" nogil:
    ctypedef struct tbf_group:
        uint64_t device
        uint32_t at, n
    void tbf_sort_groups(tbf_group *groups, tbf_group *spare, size_t n)

cdef enum:
    USUAL_MS = 86400000

cdef struct place:
    uint32_t key
    uint32_t at  # index into head.series

cdef int by_key(const void *a, const void *b) noexcept nogil:
    cdef const place *x = <const place *>a
    cdef const place *y = <const place *>b
    return -1 if x.key < y.key else (1 if x.key > y.key else 0)


cdef class Sealer:
    """Chunks of one frozen head, device by device, in key order.

    class_of(device number): which of the `classes` retention classes a device belongs to, from 0;
    None = all to the first.  ``totals``: of each class; they count what is stored: of several rows
    with the same series and time one remains.  Times within USUAL_MS of the commits are usual.
    """

    cdef Head head
    cdef readonly uint32_t run
    cdef readonly list totals
    cdef object class_of
    cdef tbf_group *groups    # by device
    cdef size_t count, next_group
    cdef place *places        # series of the device in hand
    cdef size_t place_cap
    cdef Packer packer

    def __cinit__(self, Head head not None, uint32_t run, size_t classes=1, class_of=None):
        cdef tbf_group *spare
        self.head = head
        self.run = run
        self.class_of = class_of
        self.totals = [Totals(*self._usual()) for _ in range(classes)]
        self.packer = Packer()
        self._group()
        spare = <tbf_group *>malloc((self.count + 1) * sizeof(tbf_group))
        if spare == NULL:
            raise MemoryError("no memory for sealing")
        with nogil:
            tbf_sort_groups(self.groups, spare, self.count)
        free(spare)

    def __dealloc__(self):
        free(self.groups)
        free(self.places)

    cdef tuple _usual(self):
        """First and last time of a row from a device whose clock is right and that does not wait
        long before it sends; by the commits of the first and the last row."""
        cdef uint64_t first, last
        if self.head.row_count == 0:
            return ()
        first = order_of(&self.head.rows[0])
        last = order_of(&self.head.rows[self.head.row_count - 1])
        return <int64_t>min(first, last) - USUAL_MS, <int64_t>max(first, last) + USUAL_MS

    cdef int _group(self) except -1:
        """Series that came one after the other from one device are a group."""
        cdef uint32_t i
        cdef head_series *s
        for i in range(self.head.series_count):
            self.count += i == 0 or self.head.series[i].device != self.head.series[i - 1].device
        self.groups = <tbf_group *>malloc((self.count + 1) * sizeof(tbf_group))
        if self.groups == NULL:
            raise MemoryError("no memory for sealing")
        self.count = 0
        for i in range(self.head.series_count):
            s = &self.head.series[i]
            if i == 0 or s.device != self.head.series[i - 1].device:
                self.groups[self.count].device = s.device
                self.groups[self.count].at = i
                self.groups[self.count].n = 0
                self.count += 1
            self.groups[self.count - 1].n += 1
        return 0

    @property
    def done(self):
        """Whether all devices have been given out."""
        return self.next_group == self.count

    def next(self, size_t max_bytes):
        """[[(key, chunk or page), ...] of each class] of the next devices, about max_bytes."""
        cdef uint64_t device
        out = [[] for _ in self.totals]
        with nogil:
            while self.next_group < self.count:
                device = self.groups[self.next_group].device
                if not self.packer.room_for(device, max_bytes):
                    break
                self._columns(device)
                self.packer.pack(device)
        self.packer.give_pages(self.run, self.totals, out, self.class_of)
        return out

    cdef int _columns(self, uint64_t device) except -1 nogil:
        """All series of the next device into the packer, by key."""
        cdef size_t end = self.next_group, series = 0, rows = 0, most = 0, i, n = 0
        cdef uint32_t at
        cdef bint ascending = True
        while end < self.count and self.groups[end].device == device:
            series += self.groups[end].n
            end += 1
        if series > self.place_cap:
            free(self.places)
            self.place_cap = 0
            self.places = <place *>malloc(series * sizeof(place))
            if self.places == NULL:
                with gil:
                    raise MemoryError("no memory for sealing")
            self.place_cap = series
        while self.next_group < end:
            for at in range(self.groups[self.next_group].at,
                            self.groups[self.next_group].at + self.groups[self.next_group].n):
                self.places[n].key = self.head.series[at].key
                self.places[n].at = at
                ascending = ascending and (n == 0 or self.places[n].key > self.places[n - 1].key)
                rows += self.head.series[at].count
                most = max(most, <size_t>self.head.series[at].count)
                n += 1
            self.next_group += 1
        self.packer.reserve(rows, series)
        self.packer.reserve_order(most)
        if not ascending:
            qsort(self.places, n, sizeof(place), by_key)
        for i in range(n):
            self.packer.add(self.places[i].key,
                            self._gather(&self.head.series[self.places[i].at]))
        return 0

    cdef size_t _gather(self, head_series *s) noexcept nogil:
        """Points of a series into the packer; returns how many."""
        cdef size_t at = self.packer.rows
        cdef uint32_t row = s.last
        cdef size_t i = s.count, n, kept = 0
        cdef bint ascending = True
        cdef head_row *r
        cdef int64_t later = INT64_MAX
        while row:  # newest arrival first
            r = &self.head.rows[row - 1]
            i -= 1
            # Rows of a device mostly came at equal distances; none of them is in a cache.
            if 2 * r.previous > row:
                prefetch(&self.head.rows[2 * r.previous - row - 1])
            if r.type == TBF_STRING or r.type == TBF_JSON or r.type == TBF_BYTES:
                prefetch(self.head.bytes + <size_t>r.value)
            self.packer.order[i].ts = r.ts
            self.packer.order[i].order = order_of(r)
            self.packer.order[i].arrival = row
            ascending = ascending and (r.ts < later or i == s.count - 1)
            later = r.ts
            row = r.previous
        n = s.count
        if not ascending:
            qsort(self.packer.order, n, sizeof(self.packer.order[0]), by_time)
        for i in range(n):
            if i + 1 < n and self.packer.order[i + 1].ts == self.packer.order[i].ts:
                continue  # a later one has the same time
            r = &self.head.rows[self.packer.order[i].arrival - 1]
            self.packer.ts[at + kept] = r.ts
            self._cell(&self.packer.cells[at + kept], r)
            kept += 1
        return kept

    cdef void _cell(self, tbf_cell *cell, head_row *r) noexcept nogil:
        cell.type = r.type
        cell.scale = r.scale
        cell.n = r.n
        if r.type == TBF_STRING or r.type == TBF_JSON or r.type == TBF_BYTES:
            cell.p = self.head.bytes + <size_t>r.value
        else:
            memcpy(&cell.i64, &r.value, sizeof(int64_t))


def feed_chunk(RangeScan scan not None, bytes chunk not None, names, uint32_t run,
               Deleted deleted=None, again=None):
    """Gives the points of a chunk to a range scan, without those that are deleted.

    names: {key number: name}.  Points of a later run win over those of an earlier one at the same
    time, and rows of a head over both.  again: reads the chunk once more, for a scan of so many
    that it cannot keep them all; None where it should.
    """
    cdef tbf_span span
    cdef tbf_chunk opened
    cdef tbf_chunk_column column
    cdef tbf_status status
    cdef size_t at, here
    cdef int64_t wanted
    cdef Py_ssize_t reach = deleted.reach(run) if deleted is not None else 0
    cdef bint added = False
    cdef Ranges gone
    span.p = <const uint8_t *>PyBytes_AS_STRING(chunk)
    span.n = <size_t>PyBytes_GET_SIZE(chunk)
    with nogil:
        status = tbf_chunk_open(span, &opened)
    if status != TBF_OK:
        raise StoreError("a chunk of the series store is damaged")
    scan.chunks += 1
    if scan.bounded_end and scan.end_ms == INT64_MIN:
        return
    here = at = opened.first
    while (status := tbf_chunk_next(&opened, &at, &column)) == TBF_OK:
        name = names.get(column.key)
        wanted = scan.column_of(name) if name is not None else -1
        if wanted >= 0 and (
            column.max_ts >= scan.merge.first and column.min_ts <= scan.merge.last
        ):
            if not added:
                scan.merge.add_chunk(chunk, again)
                added = True
            gone = deleted.ranges(name, reach) if reach else None
            scan.merge.add_column(<uint32_t>wanted, run, &column, opened.first, here, gone)
            scan.added(<uint32_t>wanted, &column, gone)
        here = at
    if status != TBF_MORE:
        raise StoreError("a chunk of the series store is damaged")
