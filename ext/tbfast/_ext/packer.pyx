"""Which chunks the columns of one device go to (design section 3).

Small series, and larger ones that share their times with another, go into the device's common
chunk (key 0), where shared times are written once; the rest earn a chunk of their own, so that
reading one key does not fetch the others.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp

from tbfast._ext.chunk cimport (
    TBF_CHUNK_BATCH,
    TBF_CHUNK_POINTS_MAX,
    ChunkWriter,
    tbf_cell,
    tbf_column,
)

from tbfast._ext.batch cimport TBF_OK
from tbfast._ext.page cimport TBF_PAGE_DEVICES, tbf_page, tbf_page_entry, tbf_page_write

cdef extern from "<endian.h>" nogil:
    uint64_t to_big_endian "htobe64"(uint64_t v)

cdef enum:
    OWN_POINTS = 64         # a series with so many points may have a chunk of its own ...
    ALWAYS_OWN_POINTS = 2048  # ... and with so many it always has
    ODD_DEVICES = 1024      # told apart, of those with times of their own


cdef bytes chunk_key(uint64_t device, uint32_t key, uint32_t run):
    """Device, key number or 0, run: big-endian, so that they sort."""
    cdef uint64_t parts[2]
    parts[0] = to_big_endian(device)
    parts[1] = to_big_endian(<uint64_t>key << 32 | run)
    return PyBytes_FromStringAndSize(<char *>parts, sizeof(parts))


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
    """What went into chunks; min_ts > max_ts before the first point.

    usual_first, usual_last: a device with times before or after, its clock may be wrong, is told
    apart in ``odd``, (device, earliest, latest) in order of devices, so that it does not widen
    min_ts and max_ts for all.  It is counted like the others when there are `ODD_DEVICES` already.
    """

    def __cinit__(self, int64_t usual_first=INT64_MIN, int64_t usual_last=INT64_MAX):
        self.min_ts = INT64_MAX
        self.max_ts = INT64_MIN
        self.odd = []
        self.usual_first = usual_first
        self.usual_last = usual_last

    cdef int count(self, const chunk_made *chunk) except -1:
        """One more chunk; those of a device come one after the other."""
        cdef Py_ssize_t odd = len(self.odd)
        self.points += chunk.points
        self.nbytes += chunk.n
        if chunk.min_ts >= self.usual_first and chunk.max_ts <= self.usual_last:
            self.min_ts = min(self.min_ts, chunk.min_ts)
            self.max_ts = max(self.max_ts, chunk.max_ts)
        elif odd and self.odd[odd - 1][0] == chunk.device:
            _, first, last = self.odd[odd - 1]
            self.odd[odd - 1] = chunk.device, min(first, chunk.min_ts), max(last, chunk.max_ts)
        elif odd < ODD_DEVICES:
            self.odd.append((chunk.device, chunk.min_ts, chunk.max_ts))
        else:
            self.min_ts = min(self.min_ts, chunk.min_ts)
            self.max_ts = max(self.max_ts, chunk.max_ts)
        return 0


cdef class Packer:
    """Memory for the columns of one device, used again for the next.

    Whoever fills it writes the next series at ts[rows:] and cells[rows:], then calls `add`; `pack`
    makes chunks of all series of a device, `give` or `give_pages` hands out those of all devices
    since the last time.  TBF_CHUNK_BATCH rows more than reserved may be written to.
    """

    def __cinit__(self):
        self.writer = ChunkWriter()

    def __dealloc__(self):
        free(self.ts)
        free(self.cells)
        free(self.order)
        free(self.columns)
        free(self.common)
        free(self.chunks)

    cdef int reserve(self, size_t rows, size_t columns) except -1 nogil:
        """Room for the next device; what was added is forgotten."""
        self.rows = self.count = 0
        if rows > self.row_cap or self.ts == NULL:
            free(self.ts)
            free(self.cells)
            self.row_cap = 0
            self.ts = <int64_t *>malloc((rows + TBF_CHUNK_BATCH) * sizeof(int64_t))
            self.cells = <tbf_cell *>malloc((rows + TBF_CHUNK_BATCH) * sizeof(tbf_cell))
            if self.ts == NULL or self.cells == NULL:
                with gil:
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
                with gil:
                    raise MemoryError("no memory for columns")
            self.column_cap = columns
        return 0

    cdef int reserve_order(self, size_t rows) except -1 nogil:
        """Room to sort that many rows."""
        if rows > self.order_cap:
            free(self.order)
            self.order_cap = 0
            self.order = <timed *>malloc(rows * sizeof(timed))
            if self.order == NULL:
                with gil:
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

    cdef int pack(self, uint64_t device) except -1 nogil:
        """Makes chunks of what was added."""
        cdef size_t c = 0, part, common = 0
        while c < self.count:
            part = 1  # parts of one series stay together
            while c + part < self.count and self.columns[c + part].key == self.columns[c].key:
                part += 1
            if part > 1 or self._earns_own(c):
                self._write(device, self.columns[c].key, &self.columns[c], part)
            else:
                self.common[common] = self.columns[c]
                common += 1
            c += part
        if common:
            self._write(device, 0, self.common, common)
        return 0

    cdef bint room_for(self, uint64_t device, size_t max_bytes) noexcept nogil:
        """Whether a device, the next in order, is to be packed before the rest is given out.

        Devices of a page stay together, so that it is written once; unless they are so much that
        they need none: then those to come are given singly, too.
        """
        cdef chunk_made *last
        cdef size_t i
        if self.writer.len < max_bytes or self.chunk_count == 0:
            return True
        last = &self.chunks[self.chunk_count - 1]
        if last.device // TBF_PAGE_DEVICES != device // TBF_PAGE_DEVICES:
            return False
        i = self.chunk_count
        while i and self.chunks[i - 1].device // TBF_PAGE_DEVICES == device // TBF_PAGE_DEVICES:
            i -= 1
        if self.writer.len - self.chunks[i].at <= PAGE_BYTES:
            return True
        self.split = device // TBF_PAGE_DEVICES + 1
        return False

    cdef int _sort_out(self, list totals, class_of) except -1:
        """Finds the class of each chunk and counts it in totals[class]."""
        cdef size_t i
        cdef chunk_made *chunk
        cdef Totals mine = totals[0]
        cdef uint32_t which = 0
        for i in range(self.chunk_count):
            chunk = &self.chunks[i]
            if class_of is not None and (i == 0 or chunk.device != self.chunks[i - 1].device):
                which = class_of(chunk.device)
                mine = totals[which]
            chunk.which = which
            mine.count(chunk)
        return 0

    cdef bytes _bytes_of(self, const chunk_made *chunk):
        return PyBytes_FromStringAndSize(
            <char *>self.writer.buf + chunk.at, <Py_ssize_t>chunk.n)

    cdef int give(self, uint32_t run, list totals, list out, class_of) except -1:
        """Appends (key, chunk) of what was packed to out[class], and counts it in totals[class].

        class_of(device number): None = all belong to the first.
        """
        cdef size_t i
        cdef chunk_made *chunk
        self._sort_out(totals, class_of)
        for i in range(self.chunk_count):
            chunk = &self.chunks[i]
            (<list>out[chunk.which]).append(
                (chunk_key(chunk.device, chunk.key, run), self._bytes_of(chunk)))
        self.chunk_count = self.writer.len = 0
        return 0

    cdef int give_pages(self, uint32_t run, list totals, list out, class_of) except -1:
        """The same with pages, where common chunks of neighbours are small: see tbf_page.h.

        A page has the key that the common chunk of its first device would have: chunks given
        before must have left it free.
        """
        cdef size_t i = 0, end, at
        cdef uint32_t which
        cdef uint64_t first
        cdef chunk_made *chunk
        cdef bytes page
        cdef bint singly
        self._sort_out(totals, class_of)
        while i < self.chunk_count:
            first = self.chunks[i].device // TBF_PAGE_DEVICES
            singly = first + 1 == self.split or first + 1 == self.begun
            end = i
            while end < self.chunk_count and self.chunks[end].device // TBF_PAGE_DEVICES == first:
                end += 1
            for which in range(<uint32_t>len(totals)):
                page = None if singly else self._page(i, end, which)
                if page is not None:
                    (<list>out[which]).append(
                        (chunk_key(first * TBF_PAGE_DEVICES, 0, run), page))
                for at in range(i, end):
                    chunk = &self.chunks[at]
                    if chunk.which == which and (page is None or chunk.key):
                        (<list>out[which]).append(
                            (chunk_key(chunk.device, chunk.key, run), self._bytes_of(chunk)))
            i = end
        self.begun, self.split = self.split, 0
        self.chunk_count = self.writer.len = 0
        return 0

    cdef bytes _page(self, size_t i, size_t end, uint32_t which):
        """A page of a class's common chunks among some; None if it would be too large or of one."""
        cdef tbf_page page
        cdef tbf_page_entry *entry
        cdef const chunk_made *chunk
        cdef size_t written = 0
        page.count = 0
        for i in range(i, end):
            chunk = &self.chunks[i]
            if chunk.which != which or chunk.key:
                continue
            entry = &page.entries[page.count]
            page.count += 1
            entry.place = <uint8_t>(chunk.device % TBF_PAGE_DEVICES)
            entry.chunk.p = self.writer.buf + chunk.at
            entry.chunk.n = chunk.n
            written += chunk.n
        if page.count < 2 or written > PAGE_BYTES:
            return None
        if tbf_page_write(self.page, sizeof(self.page), &page, &written) != TBF_OK:
            raise AssertionError("a page of chunks does not fit its own bound")
        return PyBytes_FromStringAndSize(<char *>self.page, <Py_ssize_t>written)

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

    cdef int _write(self, uint64_t device, uint32_t key, tbf_column *columns,
                    size_t count) except -1 nogil:
        cdef size_t c, cap = 2 * self.chunk_cap + 16, before = self.writer.len
        cdef chunk_made *chunk
        if self.chunk_count == self.chunk_cap:
            chunk = <chunk_made *>realloc(self.chunks, cap * sizeof(chunk_made))
            if chunk == NULL:
                with gil:
                    raise MemoryError("no memory for chunks")
            self.chunks = chunk
            self.chunk_cap = cap
        self.writer.append(columns, count)
        chunk = &self.chunks[self.chunk_count]
        self.chunk_count += 1
        chunk.device = device
        chunk.key = key
        chunk.points = 0
        chunk.at = before
        chunk.n = self.writer.len - before
        chunk.min_ts = INT64_MAX
        chunk.max_ts = INT64_MIN
        for c in range(count):
            chunk.points += columns[c].n
            chunk.min_ts = min(chunk.min_ts, columns[c].ts[0])
            chunk.max_ts = max(chunk.max_ts, columns[c].ts[columns[c].n - 1])
        return 0
