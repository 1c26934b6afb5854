"""Latest values as the series store keeps them: packed by a run, taken back by a start.

A record of a device holds the entries of all its series.  Between two records a run writes the
changes it makes, so that a device with many series costs it no more than the series that changed.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from tbfast.errors import StoreError

from tbfast._ext.batch cimport (
    TBF_BYTES,
    TBF_DECIMAL,
    TBF_DOUBLE,
    TBF_FALSE,
    TBF_INT64,
    TBF_JSON,
    TBF_STRING,
    TBF_TRUE,
    tbf_get_varint,
    tbf_put_varint,
    tbf_type,
    tbf_unzigzag,
    tbf_zigzag,
)
from tbfast._ext.head cimport Head
from tbfast._ext.latest cimport LatestTable, device, series
from tbfast._ext.series cimport TBF_DECIMAL_SCALE_MAX, Text, tbf_point

cdef enum:
    ELSEWHERE = 255          # scale of a packed value that has to be read from the chunks
    ABSENT = 254             # scale of a packed series whose latest value was deleted
    DEVICES_PER_SERIES = 8   # looked at in the time that it takes to pack a series


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


cdef class StoredLatest(LatestTable):
    """Latest values that can be stored, and restored before the first row arrives."""

    def __cinit__(self):
        self.heads = 1  # devices of the series store have not changed in any

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
        for i in range(start, min(start + count, self.device_count)):  # without memory, none
            self.devices[i].stale = False
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
                self._forget(number)
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
        if point.type == TBF_DECIMAL and TBF_DECIMAL_SCALE_MAX < point.scale < ABSENT:
            raise StoreError("stored latest values are damaged")
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
        s = &self.all[self._next(d, key) - 1]
        self._make_absent(s)
        if point.scale == ABSENT:
            return p
        self._take(s, base[0], 0, &point)
        if point.scale == ELSEWHERE:
            self._drop_bytes(s)
            s.elsewhere = True
        return p

    cdef int _forget(self, uint64_t number) except -1:
        """Marks a device gone, also one that was never seen; its series have no values any more."""
        cdef device *d
        cdef uint32_t at
        self._reserve(0, 1)
        d = self._device(number)
        d.gone = True
        at = d.first
        while at:
            self._make_absent(&self.all[at - 1])
            at = self.all[at - 1].next
        return 0
