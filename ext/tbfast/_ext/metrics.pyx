"""One process's metrics: a page of uint64 words shared by the node (layout in metrics.pxd)."""

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport memset

SLOT_BYTES = SLOT_WORDS * 8

BUCKET_BOUNDS_NS = (
    50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000, 100_000_000,
    250_000_000, 500_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000, 10_000_000_000,
)


@cython.final
cdef class Slot:
    """The page at ``number`` of a writable buffer, or a private one without a buffer.

    Modules that cimport this class use ``inc``, ``dec``, ``set`` and ``observe`` without the GIL
    and without checks; the methods below are the checked form for Python.  ValueError if the
    buffer does not hold that page, IndexError for a word outside it.
    """

    def __cinit__(self, buffer=None, Py_ssize_t number=0):
        if buffer is None:
            buffer = bytearray(SLOT_WORDS * 8)
        PyObject_GetBuffer(buffer, &self._page, PyBUF_WRITABLE)
        if number < 0 or self._page.len // (SLOT_WORDS * 8) <= number:
            raise ValueError(f"no slot {number} in {self._page.len} bytes")
        self.v = <uint64_t *>self._page.buf + number * SLOT_WORDS

    def __dealloc__(self):
        PyBuffer_Release(&self._page)

    def add(self, uint32_t word, uint64_t n=1):
        """Adds n to a counter or gauge."""
        self.v[checked(word, 1)] += n

    def subtract(self, uint32_t word, uint64_t n=1):
        """Takes n off a gauge."""
        self.v[checked(word, 1)] -= n

    def put(self, uint32_t word, uint64_t n):
        """Sets a gauge or a health word."""
        self.v[checked(word, 1)] = n

    def get(self, uint32_t word):
        """The word's value."""
        return self.v[checked(word, 1)]

    def observe_seconds(self, uint32_t histogram, double seconds):
        """Counts one duration; a negative one (a clock stepped back) counts as zero."""
        checked(histogram, HISTOGRAM_BUCKETS + 1)
        if not seconds > 0:
            seconds = 0
        elif seconds > 1e9:
            seconds = 1e9
        self.observe(histogram, <uint64_t>(seconds * 1e9 + 0.5))

    def begin(self, uint64_t pid):
        """Takes the page for a process that starts: gauges and health zero, counters kept."""
        memset(&self.v[GAUGES], 0, (GAUGES_END - GAUGES) * sizeof(uint64_t))
        memset(self.v, 0, HEALTH_END * sizeof(uint64_t))
        self.v[HEALTH_PID] = pid

    def end(self):
        """Marks the process as gone: gauges and health zero, counters kept."""
        self.begin(0)


cdef uint32_t checked(uint32_t word, uint32_t words) except? 0:
    if word >= SLOT_WORDS or SLOT_WORDS - word < words:
        raise IndexError(f"no metric word {word}")
    return word
