# One process's metrics: a fixed page of uint64 words in memory shared by the whole node.
#
# Word numbers are declared here, once: C code uses them as constants, Python reads the same names
# from the compiled module, and tbfast/obs/catalogue.py says how each is called, scaled and
# labelled.  A number is never reused for another meaning within a release.
#
# There are no locks: every word has one writing thread.  Readers in other processes see each
# aligned 64-bit word whole.
cimport cython
from libc.stdint cimport uint32_t, uint64_t

cpdef enum:
    SLOT_WORDS = 512  # one page

    # Health, words 0..15.  RESTARTS is written by the supervisor, the rest by the process itself.
    HEALTH_PID = 0
    HEALTH_HEARTBEAT_MS = 1
    HEALTH_LISTENING = 2
    HEALTH_JOURNAL_OPEN = 3
    HEALTH_END = 8
    RESTARTS = 8

    # Counters: kept over a restart of the process.
    MESSAGES_MQTT = 16
    MESSAGES_HTTP = 17
    POINTS = 20
    RECORDS_DROPPED_KEY = 21
    BAD_UTF8 = 22
    RECORDS_DROPPED_DEVICE = 23
    RECEIVED_BYTES_MQTT = 24
    RECEIVED_BYTES_HTTP = 25
    SENT_BYTES_MQTT = 28
    SENT_BYTES_HTTP = 29
    WRITTEN_BYTES = 32
    COMMITS = 33
    BACKPRESSURE = 34
    SEALED_POINTS = 35
    LOG_SUPPRESSED = 36
    LOG_DROPPED = 37
    TLS_FULL = 48
    TLS_RESUMED = 49
    FLAPPING = 50
    DISK_DROPPED_POINTS = 56
    JOINED_POINTS = 57
    JOINED_BYTES = 58
    CLOCK_STEPS = 60
    MEMORY_SHED = 61

    # Refusals: REFUSED_<protocol> + REASON_<word>.
    REFUSED_MQTT = 64
    REFUSED_HTTP = 80
    REFUSED_END = 128
    REASON_MALFORMED = 0
    REASON_TOO_BIG = 1
    REASON_PAYLOAD = 2
    REASON_TOPIC = 3
    REASON_AUTH = 4
    REASON_TIMEOUT = 5
    REASON_PROTOCOL = 6
    REASON_EARLY_QUEUE = 7
    REASON_STORE = 8
    REASON_SLOW_CONSUMER = 9
    REASON_WRONG_PORT = 10
    REASON_KEY = 11
    REASON_LIMIT = 12
    REASON_UNAVAILABLE = 13
    REASON_TLS = 14
    REASON_RATE = 15

    # Gauges: zero again when the process starts.
    GAUGES = 128
    CONNECTIONS_MQTT = 128
    CONNECTIONS_HTTP = 129
    SESSIONS_MQTT = 132
    JOURNAL_BYTES = 136
    UNSYNCED_BYTES = 137
    UNSYNCED_WINDOW_NS = 138
    TAIL_LAG_MS = 139
    SERIES_POINTS = 140
    SERIES_BYTES = 141
    DISK_USED_BYTES = 180
    DISK_BUDGET_BYTES = 181
    DISK_FREE_BYTES = 182
    DISK_ALARM = 183
    DISK_RESERVE_BYTES = 184
    DISK_FULL = 185
    DISK_STALLED = 186
    MEMORY_USED_BYTES = 188
    MEMORY_BUDGET_BYTES = 189
    MEMORY_LEVEL = 190
    GAUGES_END = 192

    # Histograms: HISTOGRAM_BUCKETS words of counts, then the sum in nanoseconds.
    ACK = 192
    COMMIT = 216
    HISTOGRAM_STRIDE = 24

    # Counters again: RATE_LIMITED + the limit's number in tbfast.model.rates.NAMES.
    RATE_LIMITED = 320
    RATE_LIMITED_END = 332

    HISTOGRAM_BUCKETS = 18  # the last one is +Inf

# Upper bounds, inclusive: 50 us 100 250 500, 1 ms 2.5 5 10 25 50 100 250 500, 1 s 2.5 5 10, +Inf.
cdef inline uint32_t bucket_of(uint64_t ns) noexcept nogil:
    cdef uint64_t t = ns // 10000 + (ns % 10000 != 0)  # in 10 us, rounded up
    if t <= 100:
        return 0 if t <= 5 else 1 if t <= 10 else 2 if t <= 25 else 3 if t <= 50 else 4
    if t <= 10000:
        return (5 if t <= 250 else 6 if t <= 500 else 7 if t <= 1000 else 8 if t <= 2500
                else 9 if t <= 5000 else 10)
    return (11 if t <= 25000 else 12 if t <= 50000 else 13 if t <= 100000 else 14 if t <= 250000
            else 15 if t <= 500000 else 16 if t <= 1000000 else 17)


@cython.final
cdef class Slot:
    # Points into the buffer, which is held as long as this object lives.
    cdef uint64_t *v
    cdef Py_buffer _page

    cdef inline void inc(self, uint32_t word, uint64_t n) noexcept nogil:
        self.v[word] += n

    cdef inline void dec(self, uint32_t word, uint64_t n) noexcept nogil:
        self.v[word] -= n

    cdef inline void set(self, uint32_t word, uint64_t n) noexcept nogil:
        self.v[word] = n

    cdef inline void observe(self, uint32_t histogram, uint64_t ns) noexcept nogil:
        self.v[histogram + bucket_of(ns)] += 1
        self.v[histogram + HISTOGRAM_BUCKETS] += ns
