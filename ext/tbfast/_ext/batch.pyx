"""Owner of an open batch: rows of one commit group and the key table of one journal epoch."""

from libc.stdlib cimport calloc, free, malloc, realloc

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize

import os


cdef class Batch:
    """Rows waiting for the next commit.

    max_keys: key numbers per epoch, beyond which names travel inline; ValueError above
    TBF_KEY_NUMBER_MAX.  max_bytes: bound of the rows buffer; MemoryError beyond it, with the batch
    as it was.
    """

    def __cinit__(self, uint32_t max_keys=65536, size_t max_bytes=1 << 28, seed=None):
        cdef uint32_t slots = 16
        if max_keys > TBF_KEY_NUMBER_MAX:
            raise ValueError("too many key numbers for an epoch")
        while slots < 2 * max_keys:
            slots *= 2
        if seed is None:
            seed = os.urandom(16)
        self.k.seed[0] = int.from_bytes(seed[:8], "little")
        self.k.seed[1] = int.from_bytes(seed[8:16], "little")
        self.k.cap = max_keys
        self.k.slot_mask = slots - 1
        self.k.names_cap = 64 * max_keys + 256
        # calloc of this size is untouched zero pages: memory is used as keys arrive.
        self.k.slots = <uint32_t *>calloc(slots, sizeof(uint32_t))
        self.k.keys = <tbf_key *>calloc(max_keys + 1, sizeof(tbf_key))
        self.k.names = <uint8_t *>malloc(self.k.names_cap)
        self.b.inline_slots = <tbf_inline_slot *>calloc(TBF_INLINE_SLOTS, sizeof(tbf_inline_slot))
        self.b.cap = 16384
        self.b.buf = <uint8_t *>malloc(self.b.cap)
        if not (self.k.slots and self.k.keys and self.k.names and self.b.inline_slots
                and self.b.buf):
            raise MemoryError("no memory for a batch")
        self.b.keys = &self.k
        self.max_bytes = max_bytes
        tbf_batch_clear(&self.b, 0)

    def __dealloc__(self):
        free(self.k.slots)
        free(self.k.keys)
        free(self.k.names)
        free(self.b.inline_slots)
        free(self.b.buf)

    cdef int grow(self) except -1:
        cdef size_t cap = self.b.cap * 2
        cdef uint8_t *buf
        if cap > self.max_bytes:
            raise MemoryError("batch bound reached")
        buf = <uint8_t *>realloc(self.b.buf, cap)
        if buf == NULL:
            raise MemoryError("no memory for a batch")
        self.b.buf = buf
        self.b.cap = cap
        return 0

    @property
    def nbytes(self):
        """Bytes of rows."""
        return self.b.len

    @property
    def records(self):
        return self.b.record_count

    @property
    def points(self):
        return self.b.point_count

    @property
    def dropped_records(self):
        """Records acknowledged and not stored because storage refuses a key (MQTT spec 3.3)."""
        return self.b.dropped_records

    @property
    def key_count(self):
        """Keys defined so far in this epoch."""
        return self.k.count

    def clear(self, int64_t base_ms):
        """Empties the rows and sets the base time; the key table stays."""
        tbf_batch_clear(&self.b, base_ms)

    def to_block(self, uint32_t journal_id, uint32_t epoch, uint64_t seq, int64_t commit_ms,
                 uint32_t first_key):
        """Frames the batch as block bytes; keys numbered from first_key on are defined in it."""
        cdef Py_ssize_t size = <Py_ssize_t>tbf_block_size(&self.b, first_key)
        cdef bytes out = PyBytes_FromStringAndSize(NULL, size)
        tbf_block_write(<uint8_t *>PyBytes_AS_STRING(out), &self.b, journal_id, epoch, seq,
                        commit_ms, first_key)
        return out
