"""64-bit words in memory that a node's processes share."""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint64_t

import mmap

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t word_load(const uint64_t *word) {
        return __atomic_load_n(word, __ATOMIC_ACQUIRE);
    }
    static inline int word_swap(uint64_t *word, uint64_t was, uint64_t becomes) {
        return __atomic_compare_exchange_n(word, &was, becomes, 0, __ATOMIC_ACQ_REL,
                                           __ATOMIC_RELAXED);
    }
    """
    uint64_t word_load(const uint64_t *word) nogil
    bint word_swap(uint64_t *word, uint64_t was, uint64_t becomes) nogil


@cython.final
cdef class Cells:
    """Words that are zero at first; made before the processes are forked that share them.

    Those never written take no memory.  IndexError beyond their number.
    """

    cdef object _memory
    cdef Py_buffer _buffer
    cdef uint64_t *words
    cdef readonly Py_ssize_t count

    def __cinit__(self, Py_ssize_t count):
        self._memory = mmap.mmap(-1, count * <Py_ssize_t>sizeof(uint64_t))
        PyObject_GetBuffer(self._memory, &self._buffer, PyBUF_WRITABLE)
        self.words = <uint64_t *>self._buffer.buf
        self.count = count

    def __dealloc__(self):
        if self._buffer.buf != NULL:
            PyBuffer_Release(&self._buffer)

    def load(self, Py_ssize_t index):
        """The word."""
        return word_load(self.at(index))

    def swap(self, Py_ssize_t index, uint64_t was, uint64_t becomes):
        """Replaces the word if it still is `was`; whether it did."""
        return word_swap(self.at(index), was, becomes)

    cdef uint64_t *at(self, Py_ssize_t index) except NULL:
        if not 0 <= index < self.count:
            raise IndexError(index)
        return &self.words[index]
