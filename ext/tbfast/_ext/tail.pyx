"""The controller's tail: blocks in, latest value of every series and last activity of every device.

Series records are 48 bytes in one array, found through an open-addressing index; a million series
cost about 56 MB.  The newest time wins; at equal times the last commit, then the last arrival.
Strings above `STRING_BYTES` in all are not kept here: `latest` names such keys so that the caller
reads them from the journals.
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, SIZE_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

import os

from tbfast import limits
from tbfast.errors import StoreError

from tbfast._ext.batch cimport (
    TBF_BYTES,
    TBF_DECIMAL,
    TBF_DOUBLE,
    TBF_ECORRUPT,
    TBF_FALSE,
    TBF_INT64,
    TBF_JSON,
    TBF_KIND_TELEMETRY,
    TBF_MORE,
    TBF_OK,
    TBF_STRING,
    TBF_TRUE,
    tbf_get_varint,
    tbf_put_varint,
    tbf_unzigzag,
    tbf_zigzag,
    tbf_span,
    tbf_status,
    tbf_type,
)
from tbfast._ext.chunk cimport tbf_cell
from tbfast._ext.deleted cimport Deleted, Ranges
from tbfast._ext.head cimport (
    Head, HeadPool, head_row, head_series, order_of, warm_place, warm_series,
)
from tbfast._ext.scan cimport RangeScan, hit
from tbfast._ext.series cimport (
    Text,
    cell_of,
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
    STRING_BYTES = 67108864  # latest strings kept in memory, all series together
    ELSEWHERE = 255          # scale of a packed value that has to be read from the chunks
    ABSENT = 254             # scale of a packed series whose latest value was deleted
    DEVICES_PER_SERIES = 8   # looked at in the time that it takes to pack a series
    AHEAD = 16               # records whose memory is on its way while an earlier one is applied

cdef extern from *:
    void prefetch "__builtin_prefetch"(const void *p) noexcept nogil

cdef struct series:
    uint64_t device
    int64_t ts
    int64_t value        # int64, mantissa, bits of a double, or pointer to bytes
    uint32_t key         # the tail's own key number
    uint32_t n           # length of bytes
    uint32_t next        # index + 1 of the device's next series, in order of their first points
    uint8_t type
    uint8_t scale
    uint8_t elsewhere    # the value is too large to be kept here
    uint8_t absent       # the latest value was deleted; there may be older points
    uint64_t order       # of its commit among those of all journals; 0 = from the series store

cdef struct device:
    uint64_t number
    int64_t activity_ms  # commit time of its last record
    uint32_t first, last  # index + 1 of its oldest and its newest series
    uint32_t likely      # index + 1 of the series that its next point is most likely for
    uint32_t count
    uint32_t changed     # number of the head that was filled when its last record came
    uint8_t gone         # not registered any more: its rows are dropped
    uint8_t stale        # the series store has changes to it that are not in its record

cdef struct key_name:
    uint32_t off
    uint32_t n

cdef uint64_t mix(uint64_t a, uint64_t b) noexcept nogil:
    cdef uint64_t h = (a ^ 0x9E3779B97F4A7C15ULL) * 0xBF58476D1CE4E5B9ULL
    h = (h ^ (h >> 31) ^ b) * 0x94D049BB133111EBULL
    return h ^ (h >> 29)


cdef inline int make_room(Text text, const series *s) except -1:
    """Room for 0 and an entry."""
    cdef size_t n = 51 + (0 if s.elsewhere else s.n)
    return text.room(n) if text.cap - text.len < n else 0


cdef inline uint8_t *put_entry(uint8_t *p, int64_t base, const series *s) noexcept nogil:
    """Writes varint(key << 3 | type) scale varint(zigzag(ts - base)) value; where it ends.

    Values as in tbf_batch.h.  One that is kept elsewhere has scale ELSEWHERE and no bytes, a
    deleted one scale ABSENT.
    """
    p = tbf_put_varint(p, <uint64_t>s.key << 3 | s.type)
    if s.elsewhere:
        p[0] = ELSEWHERE
    elif s.absent:
        p[0] = ABSENT
    else:
        p[0] = s.scale if s.type == TBF_DECIMAL else 0
    p = tbf_put_varint(p + 1, tbf_zigzag(<int64_t>(<uint64_t>s.ts - <uint64_t>base)))
    if s.type == TBF_INT64 or s.type == TBF_DECIMAL:
        p = tbf_put_varint(p, tbf_zigzag(s.value))
    elif s.type == TBF_DOUBLE:
        memcpy(p, &s.value, 8)
        p += 8
    elif s.type == TBF_STRING or s.type == TBF_JSON or s.type == TBF_BYTES:
        p = tbf_put_varint(p, 0 if s.elsewhere else s.n)
        if not s.elsewhere:
            memcpy(p, <void *>s.value, s.n)
            p += s.n
    return p


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


cdef class Tail:
    """State that follows the journals; all calls on one thread.

    registered(number): whether a device exists, asked when the first row of it arrives; None = all
    do.  ``dropped`` counts the records of those that do not.
    """

    cdef series *all
    cdef uint32_t count, cap
    cdef uint32_t *index
    cdef uint32_t index_mask
    cdef device *devices
    cdef uint32_t device_count, device_cap
    cdef uint32_t *device_index
    cdef uint32_t device_mask
    cdef uint64_t seed[2]
    cdef dict keys            # name -> own number (from 1)
    cdef list names
    cdef dict maps            # (journal, epoch) -> KeyMap
    cdef size_t string_bytes
    cdef uint32_t heads       # frozen so far
    cdef readonly HeadPool pool
    cdef object registered
    cdef readonly uint64_t points, dropped
    cdef readonly uint64_t attribute_records  # client attributes, which are not series
    cdef readonly Head head   # rows that no run holds yet

    def __cinit__(self, registered=None):
        random = os.urandom(16)
        self.registered = registered
        self.seed[0] = int.from_bytes(random[:8], "little")
        self.seed[1] = int.from_bytes(random[8:], "little")
        self.pool = HeadPool(limits.HEAD_SPARE_BYTES)
        self.head = Head(self.pool)
        self.keys = {}
        self.names = [b""]
        self.maps = {}
        self.heads = 1  # devices of the series store have not changed in any
        self.cap = 1024
        self.index_mask = 4095
        self.device_cap = 256
        self.device_mask = 1023
        self.all = <series *>malloc(self.cap * sizeof(series))
        self.index = <uint32_t *>calloc(self.index_mask + 1, sizeof(uint32_t))
        self.devices = <device *>malloc(self.device_cap * sizeof(device))
        self.device_index = <uint32_t *>calloc(self.device_mask + 1, sizeof(uint32_t))
        if not (self.all and self.index and self.devices and self.device_index):
            raise MemoryError("no memory for the tail")

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.count):
            self._drop_bytes(&self.all[i])
        free(self.all)
        free(self.index)
        free(self.devices)
        free(self.device_index)

    cdef inline void _drop_bytes(self, series *s) noexcept nogil:
        if s.type >= 4 and s.type <= 6 and not s.elsewhere:
            self.string_bytes -= s.n
            free(<void *>s.value)
            s.value = 0

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

    cdef uint32_t _intern(self, bytes name) except 0:
        number = self.keys.get(name)
        if number is None:
            number = self.keys[name] = len(self.names)
            self.names.append(name)
        return number

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
                self._put(d, record.ts_ms, key, &point, order, True, reach == 0)
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

    cdef int _reserve(self, size_t points, size_t records) except -1:
        """Room for as many new series and devices as a block can bring."""
        cdef void *more
        cdef uint32_t i, mask, cap
        cdef uint64_t h
        if self.count + points > self.cap:
            cap = self.cap
            while self.count + points > cap:
                cap *= 2
            more = realloc(self.all, cap * sizeof(series))
            if more == NULL:
                raise MemoryError("no memory for the tail")
            self.all = <series *>more
            self.cap = cap
        if 2 * (self.count + points) > self.index_mask:
            mask = self.index_mask
            while 2 * (self.count + points) > mask:
                mask = 2 * mask + 1
            more = calloc(<size_t>mask + 1, sizeof(uint32_t))
            if more == NULL:
                raise MemoryError("no memory for the tail")
            free(self.index)
            self.index = <uint32_t *>more
            self.index_mask = mask
            for i in range(self.count):
                h = mix(self.all[i].device ^ self.seed[0], self.all[i].key) & mask
                while self.index[h]:
                    h = (h + 1) & mask
                self.index[h] = i + 1
        if self.device_count + records > self.device_cap:
            cap = self.device_cap
            while self.device_count + records > cap:
                cap *= 2
            more = realloc(self.devices, cap * sizeof(device))
            if more == NULL:
                raise MemoryError("no memory for the tail")
            self.devices = <device *>more
            self.device_cap = cap
        if 2 * (self.device_count + records) > self.device_mask:
            mask = self.device_mask
            while 2 * (self.device_count + records) > mask:
                mask = 2 * mask + 1
            more = calloc(<size_t>mask + 1, sizeof(uint32_t))
            if more == NULL:
                raise MemoryError("no memory for the tail")
            free(self.device_index)
            self.device_index = <uint32_t *>more
            self.device_mask = mask
            for i in range(self.device_count):
                h = mix(self.devices[i].number, self.seed[0]) & mask
                while self.device_index[h]:
                    h = (h + 1) & mask
                self.device_index[h] = i + 1
        return 0

    cdef device *_find_device(self, uint64_t number) noexcept nogil:
        cdef uint64_t h = mix(number, self.seed[0]) & self.device_mask
        while self.device_index[h]:
            if self.devices[self.device_index[h] - 1].number == number:
                return &self.devices[self.device_index[h] - 1]
            h = (h + 1) & self.device_mask
        return NULL

    cdef device *_device(self, uint64_t number) noexcept nogil:
        cdef device *d = self._find_device(number)
        cdef uint64_t h
        if d != NULL:
            return d
        if self.device_count == self.device_cap:
            return NULL  # more records than the header announced
        h = mix(number, self.seed[0]) & self.device_mask
        while self.device_index[h]:
            h = (h + 1) & self.device_mask
        d = &self.devices[self.device_count]
        self.device_count += 1
        self.device_index[h] = self.device_count
        d.number = number
        d.activity_ms = 0
        d.first = d.last = d.likely = d.count = 0
        d.changed = 0
        d.gone = d.stale = False
        return d

    cdef int _put(self, device *d, int64_t ts, uint32_t key, const tbf_point *point,
                  uint64_t order, bint to_head, bint to_latest) except -1:
        cdef uint32_t at = d.likely
        cdef series *s
        # Devices repeat their keys in the order in which they first sent them.
        if at == 0 or self.all[at - 1].key != key:
            at = self._place(d.number, key)
            if at == 0:
                at = self._begin(d, key)
        s = &self.all[at - 1]
        d.likely = s.next or d.first
        if to_head:
            self.head.append(at - 1, d.number, key, ts, order, point)
        if to_latest and (s.absent or ts > s.ts or (ts == s.ts and order >= s.order)):
            self._store(s, ts, order, point)
        return 0

    cdef uint32_t _begin(self, device *d, uint32_t key) except 0:
        """A new series, absent until it gets a value; returns its index + 1."""
        cdef uint64_t h = mix(d.number ^ self.seed[0], key) & self.index_mask
        cdef series *s
        if self.count == self.cap:
            raise StoreError("journal block holds more points than it announced")
        while self.index[h]:
            h = (h + 1) & self.index_mask
        s = &self.all[self.count]
        self.count += 1
        self.index[h] = self.count
        s.device = d.number
        s.key = key
        s.next = 0
        if d.last:
            self.all[d.last - 1].next = self.count
        else:
            d.first = self.count
        d.last = self.count
        d.count += 1
        s.type = TBF_TRUE
        self._make_absent(s)
        return self.count

    cdef uint32_t _place(self, uint64_t number, uint32_t key) noexcept nogil:
        """Index + 1 of a series, 0 = there is none."""
        cdef uint64_t h = mix(number ^ self.seed[0], key) & self.index_mask
        cdef series *s
        while self.index[h]:
            s = &self.all[self.index[h] - 1]
            if s.device == number and s.key == key:
                return self.index[h]
            h = (h + 1) & self.index_mask
        return 0

    cdef series *_lookup(self, uint64_t number, uint32_t key) noexcept nogil:
        cdef uint32_t at = self._place(number, key)
        return &self.all[at - 1] if at else NULL

    cdef series *_find_series(self, device *d, uint32_t key) noexcept nogil:
        cdef uint32_t at = d.first
        while at:
            if self.all[at - 1].key == key:
                return &self.all[at - 1]
            at = self.all[at - 1].next
        return NULL

    cdef void _make_absent(self, series *s) noexcept nogil:
        self._drop_bytes(s)
        s.type = TBF_TRUE
        s.ts = s.value = 0
        s.order = 0
        s.n = s.scale = 0
        s.elsewhere = False
        s.absent = True

    cdef int _store(self, series *s, int64_t ts, uint64_t order,
                    const tbf_point *point) except -1:
        cdef void *copy = NULL
        cdef uint32_t n = 0
        if s.type >= 4 and s.type <= 6 and not s.elsewhere:
            copy = <void *>s.value
            n = s.n
            self.string_bytes -= n
        s.ts = ts
        s.order = order
        s.type = <uint8_t>point.type
        s.scale = point.scale
        s.n = 0
        s.value = 0
        s.elsewhere = s.absent = False
        if point.type == TBF_STRING or point.type == TBF_JSON or point.type == TBF_BYTES:
            s.n = <uint32_t>point.bytes.n
            if self.string_bytes + s.n > STRING_BYTES:
                free(copy)
                s.elsewhere = True
                return 0
            if copy == NULL or n != s.n:  # texts of a series are often of one length
                free(copy)
                copy = malloc(<size_t>s.n + 1)
            if copy == NULL:
                s.elsewhere = True
                raise MemoryError("no memory for a latest value")
            memcpy(copy, point.bytes.p, s.n)
            s.value = <int64_t>copy
            self.string_bytes += s.n
            return 0
        free(copy)
        if point.type == TBF_DOUBLE:
            memcpy(&s.value, &point.f64, sizeof(double))
        else:
            s.value = point.i64
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

    # --- what a run keeps of the tail, and a start takes back --------------------------------

    def names_from(self, uint32_t number):
        """[(own key number, name), ...] from a number on."""
        return list(enumerate(self.names[number:], number))

    def restore_key(self, uint32_t number, bytes name):
        """A key with the number it had; numbers must come in order, from 1, without holes."""
        if self._intern(name) != number:
            raise StoreError(f"key numbers of the series store have a hole at {number}")

    def pack_changes(self, Head head not None, uint32_t start, uint32_t count, uint32_t keys_end):
        """What a run changes: latest values of the series in its frozen head, last activity.

        Looks at devices that had records since the freeze before last, from the one in place
        `start` on until their series are `count`; returns (place to go on from, 0 = the end,
        changes): see `_pack_activity` and `_pack_change`.  Keys from `keys_end` on
        are left out: their names are not stored yet, and their rows are in a later head.
        """
        cdef uint32_t i = start, packed = 0, at
        cdef int64_t base
        cdef uint32_t end = min(start + DEVICES_PER_SERIES * count, self.device_count)
        cdef device *d
        cdef Text text = Text()
        while i < end and packed < count:
            d = &self.devices[i]
            i += 1
            if d.changed + 1 < self.heads or d.gone:
                continue
            d.stale = True
            packed += d.count + 1
            self._pack_activity(text, d.number, d)
            base = d.activity_ms
            at = d.first
            while at:
                if self.all[at - 1].key < keys_end and head.find(at - 1) != NULL:
                    base = self._pack_change(text, base, &self.all[at - 1])
                at = self.all[at - 1].next
        return (i if i < self.device_count else 0), text.to_bytes()

    cdef int _pack_activity(self, Text text, uint64_t number, device *d) except -1:
        """Appends [varint(device)] and an entry of key 0; its time is that of the last activity."""
        cdef uint8_t *p
        text.room(40)
        p = text.buf + text.len
        if number:
            p = tbf_put_varint(p, number)
        p = tbf_put_varint(p, TBF_TRUE)
        p[0] = 0
        text.len = tbf_put_varint(p + 1, tbf_zigzag(d.activity_ms)) - text.buf
        return 0

    def pack_device_changes(self, uint64_t number, uint32_t keys_end):
        """The same of all series of a device; one that is gone is an entry without a key."""
        cdef device *d = self._find_device(number)
        cdef Text text = Text()
        cdef uint32_t at
        cdef int64_t base
        cdef uint8_t *p
        if d == NULL:
            return b""
        d.stale = True
        if d.gone:
            text.room(16)
            p = tbf_put_varint(tbf_put_varint(text.buf, number), 0)
            text.len = p - text.buf
        else:
            self._pack_activity(text, number, d)
        at = 0 if d.gone else d.first
        base = d.activity_ms
        while at:
            if self.all[at - 1].key < keys_end:
                base = self._pack_change(text, base, &self.all[at - 1])
            at = self.all[at - 1].next
        return text.to_bytes()

    def pack_stale(self, uint32_t start, uint32_t count, uint32_t keys_end):
        """[(device, entries or None = gone), ...]: those in places from `start` on with changes.

        Entries of all their series, for `restore_latest`.  They count as stored from now on.
        """
        cdef uint32_t i, at
        cdef device *d
        cdef Text text
        out = []
        for i in range(start, min(start + count, self.device_count)):
            d = &self.devices[i]
            if not d.stale:
                continue
            d.stale = False
            if d.gone:
                out.append((d.number, None))
                continue
            text = Text()
            self._pack_activity(text, 0, d)
            at = d.first
            while at:
                if self.all[at - 1].key < keys_end:
                    self._pack(text, &self.all[at - 1])
                at = self.all[at - 1].next
            out.append((d.number, text.to_bytes()))
        return out

    cdef int64_t _pack_change(self, Text text, int64_t base, const series *s) except? -1:
        """Appends 0, for the same device as before, and an entry with its time less `base`.

        Returns the base of the next: the time of this one.
        """
        cdef uint8_t *p
        make_room(text, s)
        p = text.buf + text.len
        p[0] = 0
        text.len = put_entry(p + 1, base, s) - text.buf
        return s.ts

    cdef int _pack(self, Text text, const series *s) except -1:
        """Appends an entry with its time as it is."""
        make_room(text, s)
        text.len = put_entry(text.buf + text.len, 0, s) - text.buf
        return 0

    def restore_latest(self, uint64_t number, const uint8_t[::1] packed not None):
        """Takes back what `pack_stale` gave of a device; keys must have been restored before."""
        cdef const uint8_t *p = &packed[0] if packed.shape[0] else NULL
        cdef const uint8_t *end = p + packed.shape[0]
        cdef device *d
        cdef int64_t base
        self._reserve(<size_t>packed.shape[0] // 3 + 1, 1)
        d = self._device(number)
        while p != end:
            base = 0
            p = self._restore(d, p, end, &base)

    def restore_changes(self, const uint8_t[::1] packed not None):
        """Takes back what `pack_changes` or `pack_device_changes` gave; in order, after
        `restore_latest`."""
        cdef const uint8_t *p = &packed[0] if packed.shape[0] else NULL
        cdef const uint8_t *end = p + packed.shape[0]
        cdef uint64_t number
        cdef int64_t base = 0
        cdef device *d = NULL
        self._reserve(<size_t>packed.shape[0] // 4 + 1, <size_t>packed.shape[0] // 2 + 1)
        while p != end:
            p = tbf_get_varint(p, end, &number)
            if p == NULL or p == end:
                raise StoreError("stored latest values are damaged")
            if number:
                d = self._device(number)
                d.stale = True
                base = 0
            elif d == NULL:
                raise StoreError("stored latest values are damaged")
            if number and p[0] == 0:  # gone
                self.delete_device(number)
                d = NULL  # may have moved
                p += 1
            else:
                p = self._restore(d, p, end, &base)

    cdef const uint8_t *_restore(self, device *d, const uint8_t *p, const uint8_t *end,
                                 int64_t *base) except NULL:
        """Takes one entry, instead of what the series had; returns where it ends.

        base: what its time is relative to; becomes its time.
        """
        cdef uint64_t tag, ts, wide
        cdef uint32_t key
        cdef tbf_point point
        cdef series *s
        p = tbf_get_varint(p, end, &tag)
        if p == NULL or p == end or tag >> 3 >= <uint64_t>len(self.names):
            raise StoreError("stored latest values are damaged")
        key = <uint32_t>(tag >> 3)
        point.type = <tbf_type>(tag & 7)
        point.scale = p[0]
        p = tbf_get_varint(p + 1, end, &ts)
        wide = 0
        if p != NULL and point.type == TBF_DOUBLE:
            if end - p < 8:
                p = NULL
            else:
                memcpy(&point.f64, p, 8)
                p += 8
        elif p != NULL and point.type != TBF_TRUE and point.type != TBF_FALSE:
            p = tbf_get_varint(p, end, &wide)
        if p != NULL and (point.type == TBF_STRING or point.type == TBF_JSON
                          or point.type == TBF_BYTES):
            if <uint64_t>(end - p) < wide:
                p = NULL
            else:
                point.bytes.p = p
                point.bytes.n = wide
                p += wide
        if p == NULL:
            raise StoreError("stored latest values are damaged")
        base[0] = <int64_t>(<uint64_t>base[0] + <uint64_t>tbf_unzigzag(ts))
        if key == 0:
            d.activity_ms = max(d.activity_ms, base[0])
            return p
        point.i64 = tbf_unzigzag(wide)
        s = self._lookup(d.number, key)
        if s != NULL:
            self._make_absent(s)
        self._put(d, base[0], key, &point, 0, False, True)
        if point.scale == ELSEWHERE or point.scale == ABSENT:
            s = self._lookup(d.number, key)
            if point.scale == ABSENT:
                self._make_absent(s)
            else:
                self._drop_bytes(s)
                s.elsewhere = True
        return p

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
        cdef device *d
        lost = self.delete(number, None, INT64_MIN, INT64_MAX, True)
        self._reserve(0, 1)
        d = self._device(number)
        d.gone = True
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
            self._put(d, h.ts, key, &point, 0, False, True)
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
