"""MurmurHash3 with the interface of hashlib (ext/c/tbf_murmur.h)."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t


cdef extern from "tbf_murmur.h" nogil:
    ctypedef struct tbf_murmur:
        uint32_t block
    void tbf_murmur_begin(tbf_murmur *m, uint32_t block)
    void tbf_murmur_take(tbf_murmur *m, const uint8_t *p, size_t n)
    void tbf_murmur_digest(const tbf_murmur *m, uint8_t *out)


@cython.final
cdef class Murmur3:
    """x86_32 for 32 bits, x64_128 for 128; seed 0."""

    cdef tbf_murmur m

    def __cinit__(self, uint32_t bits):
        if bits not in (32, 128):
            raise ValueError("a digest has 32 or 128 bits")
        tbf_murmur_begin(&self.m, bits // 8)

    def update(self, const uint8_t[::1] data):
        """Takes more bytes."""
        if data.shape[0]:
            with nogil:
                tbf_murmur_take(&self.m, &data[0], <size_t>data.shape[0])

    def digest(self):
        """The digest so far, little-endian."""
        cdef uint8_t[16] out
        tbf_murmur_digest(&self.m, out)
        return (<char *>out)[:self.m.block]
