"""The controller's tail: blocks in, rows for the head, and what queries read of both.

Latest values and last activity are kept by `latest.pyx`, and stored as `latest_store.pyx` says.
Values that are not kept in memory `latest` names, so that the caller reads them from head and
chunks.
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, SIZE_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from tbfast import limits
from tbfast.errors import StoreError

from tbfast._ext.batch cimport (
    TBF_ECORRUPT,
    TBF_KIND_TELEMETRY,
    TBF_MORE,
    TBF_OK,
    tbf_span,
    tbf_status,
    tbf_type,
)
from tbfast._ext.chunk cimport tbf_cell
from tbfast._ext.deleted cimport Deleted, Ranges
from tbfast._ext.head cimport (
    Head, HeadPool, head_row, head_series, order_of, warm_place, warm_series,
)
from tbfast._ext.latest cimport device, mix, series
from tbfast._ext.latest_store cimport StoredLatest
from tbfast._ext.scan cimport RangeScan, hit
from tbfast._ext.series cimport (
    Text,
    cell_of,
    check_key_number,
    open_block,
    point_of,
    tbf_block,
    tbf_next_def,
    tbf_next_point,
    tbf_next_record,
    tbf_point,
    tbf_record,
)

cdef enum:
    AHEAD = 16  # records whose memory is on its way while an earlier one is applied

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *p) noexcept nogil

cdef struct warmer:
    tbf_span records     # not looked at yet
    size_t turn
    uint64_t slots[AHEAD]  # of the device index, by turn

cdef class KeyMap:
    """Key numbers of one journal epoch -> the tail's own."""

    cdef uint32_t *map
    cdef size_t len

    def __dealloc__(self):
        free(self.map)

    cdef int set(self, size_t number, uint32_t key) except -1:
        cdef uint32_t *more
        cdef size_t wanted, i
        check_key_number(number)
        if number >= self.len:
            wanted = 2 * number + 16
            more = <uint32_t *>realloc(self.map, wanted * sizeof(uint32_t))
            if more == NULL:
                raise MemoryError("no memory for a key table")
            for i in range(self.len, wanted):
                more[i] = 0
            self.map = more
            self.len = wanted
        self.map[number] = key
        return 0


cdef class Tail(StoredLatest):
    """State that follows the journals; all calls on one thread.

    registered(number): whether a device exists, asked when the first row of it arrives; None = all
    do.  ``dropped`` counts the records of those that do not.
    """

    cdef dict maps            # (journal, epoch) -> KeyMap
    cdef readonly HeadPool pool
    cdef object registered
    cdef readonly uint64_t points, dropped
    cdef readonly uint64_t attribute_records  # client attributes, which are not series
    cdef readonly Head head   # rows that no run holds yet

    def __cinit__(self, registered=None):
        self.registered = registered
        self.pool = HeadPool(limits.HEAD_SPARE_BYTES)
        self.head = Head(self.pool)
        self.maps = {}

    # --- keys ----------------------------------------------------------------------------

    def define(self, uint32_t journal, uint32_t epoch, uint32_t first, names):
        """Key definitions of one journal epoch: numbers count up from `first`."""
        cdef KeyMap known = self.maps.get((journal, epoch))
        if known is None:
            known = self.maps[(journal, epoch)] = KeyMap()
        for i, name in enumerate(names):
            known.set(first + i, self._intern(name))

    def forget_epochs(self, uint32_t journal, uint32_t before):
        """Drops key tables of epochs that have no blocks any more."""
        for known in [k for k in self.maps if k[0] == journal and k[1] < before]:
            del self.maps[known]

    # --- blocks in -----------------------------------------------------------------------

    def apply(self, const uint8_t[::1] data not None, dict deleted=None, int64_t ahead_ms=0):
        """Takes one block in; returns (journal, epoch, sequence, points, commit time ms).

        deleted: {device: Deleted} while rows are replayed that deletes already saw.  ahead_ms: what
        the clock has been set back since: added to the commit time it gives the commit's place
        among all commits.
        """
        cdef tbf_block block
        cdef tbf_span at, name
        cdef KeyMap known
        cdef uint32_t number
        cdef int64_t order
        cdef tbf_status status
        open_block(&data[0] if data.shape[0] else NULL, <size_t>data.shape[0], &block)
        self._reserve(block.point_count, block.record_count)
        at = block.defs
        number = block.first_key
        known = self.maps.get((block.journal_id, block.epoch))
        if known is None:
            known = self.maps[(block.journal_id, block.epoch)] = KeyMap()
        while (status := tbf_next_def(&at, &name)) == TBF_OK:
            known.set(number, self._intern((<char *>name.p)[:name.n]))
            number += 1
        if status == TBF_MORE:
            order = block.commit_ms + ahead_ms
            status = self._rows(&block, known, deleted, <uint64_t>order if order > 0 else 0)
        if status != TBF_MORE:
            raise StoreError("journal block does not parse")
        return block.journal_id, block.epoch, block.seq, block.point_count, block.commit_ms

    cdef tbf_status _rows(self, tbf_block *block, KeyMap known, dict deleted,
                          uint64_t order) except *:
        cdef tbf_record record
        cdef tbf_point point
        cdef tbf_status status
        cdef device *d
        cdef uint32_t key
        cdef Deleted mine = None
        cdef Py_ssize_t reach = 0
        cdef Ranges ranges
        cdef warmer warm
        self._begin_warming(&warm, block.rows)
        while (status := tbf_next_record(&block.rows, block.base_ms, &record)) == TBF_OK:
            self._warm(&warm)
            d = self._find_device(record.device)
            if d == NULL:
                d = self._device(record.device)
                if d == NULL:
                    return TBF_ECORRUPT
                d.gone = self.registered is not None and not self.registered(record.device)
            if deleted is not None:
                mine = deleted.get(record.device)
                reach = 0 if mine is None else (
                    mine.reach(<object>block.epoch << 64 | block.seq)
                )
            if d.gone:
                self.dropped += not reach
                continue
            if block.commit_ms > d.activity_ms:
                d.activity_ms = block.commit_ms
            d.changed = self.heads
            if record.kind != TBF_KIND_TELEMETRY:
                self.attribute_records += 1
                continue
            while (status := tbf_next_point(&record.points, &point)) == TBF_OK:
                if point.dead:
                    continue
                if point.key == 0:
                    key = self._intern((<char *>point.name.p)[:point.name.n])
                elif point.key < known.len and known.map[point.key]:
                    key = known.map[point.key]
                else:
                    raise StoreError("journal block uses a key that nothing defines")
                if reach:
                    ranges = mine.ranges(self.names[key], reach)
                    if ranges is not None and ranges.has(record.ts_ms):
                        continue
                self.points += 1
                # The latest values that a delete stored have seen all rows up to it.
                self._put(d, record.ts_ms, key, &point, order, reach == 0)
            if status != TBF_MORE:
                return status
        return status

    cdef void _begin_warming(self, warmer *w, tbf_span records) noexcept nogil:
        cdef int _turn
        memset(w, 0, sizeof(warmer))
        w.records = records
        for _turn in range(AHEAD - 1):
            self._warm(w)

    cdef void _warm(self, warmer *w) noexcept nogil:
        """Fetches what the records to come will touch, each pointer some turns after the last.

        With a million series none of it is in a cache; waiting for one miss at a time would cost
        more than all the rest.
        """
        cdef tbf_record record
        cdef uint32_t at
        if tbf_next_record(&w.records, 0, &record) == TBF_OK:
            w.slots[w.turn % AHEAD] = mix(record.device, self.seed[0]) & self.device_mask
            prefetch(&self.device_index[w.slots[w.turn % AHEAD]])
        at = self.device_index[w.slots[(w.turn + AHEAD - 4) % AHEAD]]
        if at:
            prefetch(&self.devices[at - 1])
        at = self.device_index[w.slots[(w.turn + AHEAD - 8) % AHEAD]]
        if at and self.devices[at - 1].likely:
            at = self.devices[at - 1].likely - 1
            prefetch(&self.all[at])
            warm_place(self.head, at)
        at = self.device_index[w.slots[(w.turn + AHEAD - 12) % AHEAD]]
        if at and self.devices[at - 1].likely:
            warm_series(self.head, self.devices[at - 1].likely - 1)
        w.turn += 1

    cdef int _put(self, device *d, int64_t ts, uint32_t key, const tbf_point *point,
                  uint64_t order, bint to_latest) except -1:
        """A row for the head; of a device that has place for its series."""
        cdef uint32_t at = self._next(d, key)
        self.head.append(at - 1, d.number, key, ts, order, point)
        if to_latest:
            self._take(&self.all[at - 1], ts, order, point)
        return 0

    def feed(self, RangeScan scan, Head head, uint64_t number, uint32_t age, Deleted deleted=None,
             place=(0, 0), size_t most=SIZE_MAX):
        """Gives the rows that `head` holds of a device to a range scan: later than any chunk.

        age: 0 for the newest head; rows of a smaller age win at equal times and commits.  deleted:
        what was deleted of a frozen head, at any position.

        Looks at about `most` rows from a place on, (0, 0) = from the start; returns the place to go
        on from, None at the end.  Rows that came or were deleted since are given or not.
        """
        cdef device *d = self._find_device(number)
        cdef uint32_t i = place[0]
        cdef uint32_t row = place[1]
        cdef head_series *held
        cdef int64_t column
        cdef Py_ssize_t reach = deleted.reach(0) if deleted is not None else 0
        cdef Ranges gone = None
        if i == 0 and d != NULL:
            i = d.first
            scan.reserve(self._rows_in(scan, head, i))
        while i:
            held = head.find(i - 1)
            if held != NULL:
                name = self.names[self.all[i - 1].key]
                column = scan.column_of(name)
                if reach:
                    gone = deleted.ranges(name, reach)
                if column >= 0:
                    row = self._feed_series(scan, head, row or held.last, <uint32_t>column, age,
                                            gone, &most)
                    if row:
                        return i, row
            row = 0
            i = self.all[i - 1].next
            most -= most > 0
            if i and most == 0:
                return i, 0
        return None

    cdef size_t _rows_in(self, RangeScan scan, Head head, uint32_t i) except? 0:
        """Rows that a head holds of wanted series, from one of a device's on."""
        cdef head_series *held
        cdef size_t rows = 0
        while i:
            held = head.find(i - 1)
            if held != NULL and scan.column_of(self.names[self.all[i - 1].key]) >= 0:
                rows += held.count
            i = self.all[i - 1].next
        return rows

    cdef int64_t _feed_series(self, RangeScan scan, Head head, uint32_t at, uint32_t column,
                              uint32_t age, Ranges gone, size_t *most) except -1:
        """The rows of a series from one on, back to the oldest; which is next, 0 = none."""
        cdef head_row *row
        cdef tbf_point point
        cdef tbf_cell cell
        while at and most[0]:
            row = &head.rows[at - 1]
            most[0] -= 1
            if row.ts >= scan.start_ms and (not scan.bounded_end or row.ts < scan.end_ms) and (
                scan.wants_time(column, row.ts) and (gone is None or not gone.has(row.ts))
            ):
                point.type = <tbf_type>row.type
                point.scale = row.scale
                point.i64 = row.value
                memcpy(&point.f64, &row.value, sizeof(double))
                point.bytes.p = head.bytes + <size_t>row.value if row.n else NULL
                point.bytes.n = row.n
                cell_of(&point, &cell)
                scan.add(column, row.ts, <int64_t>order_of(row),
                         (<uint64_t>1 << 62) - (<uint64_t>age << 32) + at, &cell)
            at = row.previous
        return at

    # --- runs ------------------------------------------------------------------------------

    def freeze(self):
        """The head so far, for the sealer; rows that follow go to a new one."""
        head, self.head = self.head, Head(self.pool)
        self.heads += 1
        return head

    # --- deletes -------------------------------------------------------------------------

    def delete(self, uint64_t number, names, int64_t first, int64_t last, bint latest):
        """Takes a device's rows with first <= ts <= last out of the head.

        names: keys, None = all.  With `latest` also the latest values in that range; returns the
        names of the keys that lost theirs.
        """
        cdef device *d = self._find_device(number)
        cdef uint32_t i = d.first if d != NULL else 0
        cdef series *s
        lost = []
        wanted = None if names is None else frozenset(names)
        while i:
            s = &self.all[i - 1]
            name = self.names[s.key]
            if wanted is None or name in wanted:
                self.head.remove(i - 1, first, last)
                if latest and not s.absent and first <= s.ts and s.ts <= last:
                    self._make_absent(s)
                    lost.append(name)
            i = s.next
        return lost

    def delete_device(self, uint64_t number):
        """Forgets a device: its rows so far are deleted, later ones dropped."""
        lost = self.delete(number, None, INT64_MIN, INT64_MAX, True)
        self._forget(number)
        return lost

    def rewrite_latest(self, uint64_t number, RangeScan scan not None):
        """Takes points of a scan (limit 1, newest first) as latest values, if they are newer."""
        self._take_latest(number, scan, False)

    def adopt_latest(self, uint64_t number, RangeScan scan not None):
        """The same, also of a device and of series that were not known."""
        self._take_latest(number, scan, True)

    cdef int _take_latest(self, uint64_t number, RangeScan scan, bint adopt) except -1:
        cdef device *d
        cdef series *s
        cdef hit *h
        cdef size_t i
        cdef tbf_point point
        scan.settle()
        if adopt and scan.count:
            self._reserve(scan.count, 1)
            self._device(number).stale = True
        d = self._find_device(number)
        if d == NULL or d.gone:
            return 0
        for i in range(scan.count):
            h = &scan.hits[i]
            key = self.keys.get(scan.names[h.column])
            s = self._find_series(d, key) if key is not None else NULL
            if key is None or not (adopt if s == NULL else s.absent or h.ts > s.ts):
                continue
            point_of(&h.cell, &point)
            self._take(&self.all[self._next(d, key) - 1], h.ts, 0, &point)
        return 0

    def numbers(self, uint32_t start, uint32_t count):
        """Numbers of devices seen: `count` of them from the one in place `start`."""
        cdef uint32_t i
        return [self.devices[i].number for i in range(start, min(start + count, self.device_count))]

    def active_since(self, int64_t since_ms, uint32_t start, uint32_t count):
        """(number, commit time of the last record) of those among `count` places it came since."""
        cdef uint32_t i
        cdef device *d
        found = []
        for i in range(start, min(start + count, self.device_count)):
            d = &self.devices[i]
            if d.activity_ms >= since_ms and d.activity_ms and not d.gone:
                found.append((d.number, d.activity_ms))
        return found

    @property
    def devices_seen(self):
        """Places of devices in use."""
        return self.device_count

    # --- reads ---------------------------------------------------------------------------

    @property
    def series(self):
        """Number of series seen."""
        return self.count

    def activity_ms(self, uint64_t number):
        """Commit time of the device's last record, 0 = none."""
        cdef device *d = self._find_device(number)
        return d.activity_ms if d != NULL else 0

    def key_names(self, uint64_t number):
        """Telemetry keys of a device, sorted."""
        cdef device *d = self._find_device(number)
        cdef uint32_t i
        names = []
        if d != NULL:
            i = d.first
            while i:
                if not self.all[i - 1].absent:
                    names.append(self.names[self.all[i - 1].key].decode())
                i = self.all[i - 1].next
        return sorted(names)

    def key_numbers(self, uint64_t number):
        """{own key number: name} of a device's keys, also of those without a latest value."""
        cdef device *d = self._find_device(number)
        cdef uint32_t i = d.first if d != NULL else 0
        found = {}
        while i:
            found[self.all[i - 1].key] = self.names[self.all[i - 1].key]
            i = self.all[i - 1].next
        return found

    def latest(self, uint64_t number, keys=None):
        """(JSON {"key":[{"ts":..,"value":..}],.. without its last brace, keys kept elsewhere)."""
        cdef device *d = self._find_device(number)
        cdef Text text = Text()
        cdef tbf_point point
        cdef tbf_span name
        cdef series *s
        cdef uint32_t i
        cdef bint first = True
        wanted = None if keys is None else {key.encode() for key in keys}
        elsewhere = []
        text.raw(b"{", 1)
        i = d.first if d != NULL else 0
        while i:
            s = &self.all[i - 1]
            i = s.next
            raw_name = self.names[s.key]
            if s.absent or (wanted is not None and raw_name not in wanted):
                continue
            if s.elsewhere:
                elsewhere.append(raw_name.decode())
                continue
            if not first:
                text.raw(b",", 1)
            first = False
            name.p = <const uint8_t *><const char *>raw_name
            name.n = <size_t>len(raw_name)
            text.string(name)
            text.raw(b':[{"ts":', 8)
            text.int64(s.ts)
            text.raw(b',"value":', 9)
            point.type = <tbf_type>s.type
            point.scale = s.scale
            point.i64 = s.value
            memcpy(&point.f64, &s.value, sizeof(double))
            point.bytes.p = <const uint8_t *>s.value
            point.bytes.n = s.n
            text.value(&point)
            text.raw(b"}]", 2)
        return text.to_bytes(), elsewhere
