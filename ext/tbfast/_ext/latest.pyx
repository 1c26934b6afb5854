"""Latest value of every series and last activity of every device, in memory.

Series are records of 48 bytes in one array, found through an open-addressing index; a million cost
about 56 MB.  The newest time wins; at equal times the last commit, then the last arrival.  Strings
above `STRING_BYTES` in all are not kept here: such a series is marked `elsewhere`.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy

import os

from tbfast.errors import StoreError

from tbfast._ext.batch cimport TBF_BYTES, TBF_DOUBLE, TBF_JSON, TBF_STRING, TBF_TRUE

cdef enum:
    STRING_BYTES = 67108864  # latest strings kept in memory, all series together


cdef class LatestTable:
    """Devices, their keys and series; all calls on one thread.

    Places in the arrays are given for good: nothing is ever taken out.  A device or series that is
    deleted is marked so.
    """

    def __cinit__(self):
        random = os.urandom(16)
        self.seed[0] = int.from_bytes(random[:8], "little")
        self.seed[1] = int.from_bytes(random[8:], "little")
        self.keys = {}
        self.names = [b""]
        self.cap = 1024
        self.index_mask = 4095
        self.device_cap = 256
        self.device_mask = 1023
        self.all = <series *>malloc(self.cap * sizeof(series))
        self.index = <uint32_t *>calloc(self.index_mask + 1, sizeof(uint32_t))
        self.devices = <device *>malloc(self.device_cap * sizeof(device))
        self.device_index = <uint32_t *>calloc(self.device_mask + 1, sizeof(uint32_t))
        if not (self.all and self.index and self.devices and self.device_index):
            raise MemoryError("no memory for latest values")

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.count):
            self._drop_bytes(&self.all[i])
        free(self.all)
        free(self.index)
        free(self.devices)
        free(self.device_index)

    cdef void _drop_bytes(self, series *s) noexcept nogil:
        if s.type >= TBF_STRING and s.type <= TBF_BYTES and not s.elsewhere:
            self.string_bytes -= s.n
            free(<void *>s.value)
            s.value = 0
    cdef uint32_t _intern(self, bytes name) except 0:
        number = self.keys.get(name)
        if number is None:
            number = self.keys[name] = len(self.names)
            self.names.append(name)
        return number
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
                raise MemoryError("no memory for latest values")
            self.all = <series *>more
            self.cap = cap
        if 2 * (self.count + points) > self.index_mask:
            mask = self.index_mask
            while 2 * (self.count + points) > mask:
                mask = 2 * mask + 1
            more = calloc(<size_t>mask + 1, sizeof(uint32_t))
            if more == NULL:
                raise MemoryError("no memory for latest values")
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
                raise MemoryError("no memory for latest values")
            self.devices = <device *>more
            self.device_cap = cap
        if 2 * (self.device_count + records) > self.device_mask:
            mask = self.device_mask
            while 2 * (self.device_count + records) > mask:
                mask = 2 * mask + 1
            more = calloc(<size_t>mask + 1, sizeof(uint32_t))
            if more == NULL:
                raise MemoryError("no memory for latest values")
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
    cdef uint32_t _next(self, device *d, uint32_t key) except 0:
        """Index + 1 of the series of a device's next point; a new one is absent."""
        cdef uint32_t at = d.likely
        # Devices repeat their keys in the order in which they first sent them.
        if at == 0 or self.all[at - 1].key != key:
            at = self._place(d.number, key)
            if at == 0:
                at = self._begin(d, key)
        d.likely = self.all[at - 1].next or d.first
        return at

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

    cdef int _take(self, series *s, int64_t ts, uint64_t order,
                   const tbf_point *point) except -1:
        """A point of a series, which becomes its latest value if none is newer."""
        cdef void *copy = NULL
        cdef uint32_t n = 0
        if not (s.absent or ts > s.ts or (ts == s.ts and order >= s.order)):
            return 0
        if s.type >= TBF_STRING and s.type <= TBF_BYTES and not s.elsewhere:
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
