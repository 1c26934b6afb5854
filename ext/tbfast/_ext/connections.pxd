# Sockets by slot: see connections.pyx.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from tbfast._ext.ingest cimport Ingest
from tbfast._ext.metrics cimport Slot
from tbfast._ext.posix cimport sockaddr_in6

cdef extern from *:
    const uint32_t NOBODY "UINT32_MAX"  # no slot

cdef extern from *:
    """
    #define TBF_LISTENER UINT64_MAX
    #define TBF_TLS_LISTENER (UINT64_MAX - 1)
    #define TBF_LOBBY (UINT64_MAX - 2)
    """
    # What epoll says about something that is no connection.
    const uint64_t LISTENER "TBF_LISTENER"
    const uint64_t TLS_LISTENER "TBF_TLS_LISTENER"
    const uint64_t LOBBY "TBF_LOBBY"

cdef enum conn_state:
    FREE = 0
    OPEN = 1
    DRAINING = 2   # no more input is acted on; closes when the output is gone
    LINGERING = 3  # our side is shut; input is discarded until the peer closes or the deadline

cdef enum conn_stage:
    PLAIN = 0    # bytes are MQTT
    SEALED = 1   # records are MQTT, once opened
    SHAKING = 2  # TLS handshake under way
    HELLO = 3    # it has not begun
    PROXY = 4    # the header of a proxy comes first

cdef struct conn:
    int fd
    uint32_t generation
    uint32_t in_len
    uint32_t in_cap
    uint32_t out_off
    uint32_t out_len
    uint32_t out_cap
    uint8_t state
    uint8_t stage
    bint secure     # TLS, whether it has begun or not
    bint held       # input waits in `inp` until the store has caught up
    bint stranger   # no session was accepted yet
    bint spoke      # it has sent something as one
    bint in_on      # interest registered with epoll
    bint out_on
    uint8_t address[16]  # of the peer, or of whom the proxy speaks for
    uint16_t port
    uint8_t *inp
    uint8_t *out
    int64_t progress_ms  # when unsent output last moved
    int64_t deadline_ms
    int64_t came_ns

cdef class Connections:
    cdef Ingest ingest
    cdef Slot metrics
    cdef object handler
    cdef conn *conns
    cdef uint32_t capacity
    cdef list free_slots
    cdef int epfd
    cdef int lobby          # the epoll of strangers, watched by epfd
    cdef int listen_fds[2]  # plain, TLS
    cdef bint listening, accept_paused
    cdef object wrap
    cdef dict streams       # TlsStream by slot
    cdef uint32_t serving   # slot whose records are being acted on; its answers are gathered
    cdef bytearray gathered
    cdef set held_slots
    cdef size_t linger_ms, freed_bytes
    cdef int64_t turn_ns    # when the turn of the loop began
    cdef int64_t heard_ns   # strangers that were there then have been read
    cdef readonly uint32_t connections, strangers
    cdef readonly int64_t mono_ms
    cdef public uint32_t max_connections
    cdef public bint screening  # ask whether an address may connect
    cdef public bint proxied    # connections begin with a PROXY protocol header

    cdef int _watch_listeners(self, bint on) except -1
    cdef int _accept(self, bint secure) except -1
    cdef bint _may_make_room(self) except? -1
    cdef int _pause_accept(self) except -1
    cdef int _add(self, int fd, const sockaddr_in6 *address, bint secure) except -1
    cdef int _more_slots(self) except -1
    cdef bint _is(self, uint32_t slot, uint32_t generation) noexcept
    cdef int _fault(self, uint32_t slot, uint32_t generation, error) except -1
    cdef int _keep(self, uint32_t slot, const uint8_t *p, size_t n) except -1
    cdef int _interest(self, uint32_t slot) except -1
    cdef int _watch(self, uint32_t slot, int epfd, int op) except -1
    cdef bint _send(self, conn *c, const uint8_t *p, size_t n) noexcept nogil
    cdef bint _seal(self, uint32_t slot, const uint8_t *p, size_t n) noexcept
    cdef int _send_gathered(self) except -1
    cdef bint _pass_on(self, uint32_t slot, bytes data) except -1
    cdef int _flush(self, uint32_t slot) except -1
    cdef int _finish_now(self, uint32_t slot) except -1
    cdef int _linger(self, uint32_t slot) except -1
    cdef int _lost(self, uint32_t slot, str reason=*) except -1
    cdef int _sweep(self) except -1
