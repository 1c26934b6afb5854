"""TCP adapter for MQTT: a private epoll bridged into the event loop by one `add_reader`.

Strangers, who have no session yet, share an epoll of their own and are served after everybody else,
so many a turn: however many come, who is in hardly notices.

Why not transports: with one message per read, a loop transport costs a fifth of the CPU and 1.4 KB
an idle connection; here a turn of the loop is one Python call however many sockets are ready, and
a connection that the store cannot keep up with is simply not read.  In front of it stands a `Gate`.

A connection may have to bring a PROXY protocol header and a TLS handshake before its first packet
(`conn_stage`); from then on the same code serves all of them.

Who owns what: the reactor owns descriptors, partial frames and unsent output; `Ingest` owns rows
and answers owed; the handler (tbfast.net.mqtt) owns the session engines and decides everything
that is not a plain telemetry PUBLISH.  All calls happen on the loop's thread.
"""

cimport cython
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EAGAIN, EEXIST, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

import ipaddress
from collections import deque

from tbfast import limits

from tbfast._ext.batch cimport TBF_MORE, TBF_OK, tbf_status
from tbfast._ext.ingest cimport (
    TBF_GROUP_ACKS,
    TBF_WALK_DONE,
    TBF_WALK_GROUP_FULL,
    TBF_WALK_GROW,
    TBF_WALK_LIMITED,
    Group,
    Ingest,
    tbf_owed,
    tbf_session,
    tbf_touched,
    tbf_walk,
    tbf_walk_end,
)
from tbfast._ext.gate cimport Gate
from tbfast._ext.metrics cimport RECEIVED_BYTES_MQTT, SENT_BYTES_MQTT, Slot
from tbfast._ext.mqtt cimport tbf_frame, tbf_mqtt_frame, tbf_mqtt_put_ack
from tbfast._ext.proxy cimport tbf_proxy, tbf_proxy_read
from tbfast._ext.tls cimport TLS_FAILED, TLS_MORE, TlsStream, tls_end
from tbfast._ext.posix cimport (
    AF_INET,
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    IPPROTO_TCP,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    SHUT_WR,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    TCP_NODELAY,
    TCP_USER_TIMEOUT,
    accept4,
    close,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    now_ns,
    recv,
    send,
    setsockopt,
    shutdown,
    sockaddr_in,
    sockaddr_in6,
)

cdef extern from *:
    """
    #include <malloc.h>
    #ifdef __GLIBC__
    #define give_back_free_pages() malloc_trim(0)
    #else
    #define give_back_free_pages() 0
    #endif
    """
    int give_back_free_pages() nogil

cdef enum:
    READ_BYTES = 262144        # one read of a socket
    SEALED_READ_BYTES = 16384  # the same of TLS, whose answers cost more
    GATHER_BYTES = 16384       # answers to one read of TLS that share a record
    SHAKE_NS = 10000000        # spent on TLS handshakes in one turn of the loop
    HANDSHAKE_RECORD = 0x16    # first byte of whatever starts TLS
    PRESSED_READ_BYTES = 4096  # the same while the store is behind
    EVENTS = 512               # sockets served per turn
    STRANGERS = 64             # of those without a session: a storm of them leaves room for others
    ACCEPTS = 128              # connections accepted per turn
    PACKETS = 1024             # of one connection that the engine acts on in one go
    TRIM_BYTES = 8388608       # freed by closed connections: given back to the system
    SCRATCH_BYTES = 65536      # answers gathered for one send

cdef uint32_t NOBODY = 0xFFFFFFFF  # no slot

# What epoll says about something that is no connection.
cdef uint64_t LISTENER = <uint64_t>-1
cdef uint64_t TLS_LISTENER = <uint64_t>-2
cdef uint64_t LOBBY = <uint64_t>-3

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

cdef bytes V4_MAPPED = bytes(10) + b"\xff\xff"
cdef uint32_t OUTBOUND_BYTES = limits.OUTBOUND_BYTES
cdef uint32_t OUTBOUND_PAUSE_BYTES = limits.OUTBOUND_PAUSE_BYTES
cdef int64_t WRITE_TIMEOUT_MS = limits.WRITE_TIMEOUT_MS
cdef int TCP_TIMEOUT_MS = limits.TCP_TIMEOUT_MS
cdef int64_t STRANGER_GRACE_NS = limits.STRANGER_GRACE_MS * 1000000
cdef int64_t HANDSHAKE_WAIT_MS = limits.TLS_HANDSHAKE_WAIT_MS

cdef inline void unsent_to_front(conn *c) noexcept nogil:
    """Moves unsent output to the front of its buffer."""
    memmove(c.out, c.out + c.out_off, c.out_len)
    c.out_off = 0


@cython.final
cdef class Reactor:
    """Sockets of one worker's MQTT listeners.

    handler methods, called with the connection's slot: ``opened``, ``stranger_sent(slot, nbytes)``
    (no session is accepted there yet; see `accepted`), ``received(slot, view)`` with
    one complete packet (or the bytes that cannot be one; the view is valid during the call only),
    ``limited`` (a message is over a rate limit: the session must end), ``timed_out``, ``drained``
    (no answer is owed any more), ``refused`` (rows were not stored),
    ``fault(slot, error)`` (the handler itself failed; the connection ends), ``closed(slot,
    reason)``; and without one ``group_full``, ``turn_ended``, ``resume_later``,
    ``accept_paused``, ``first_to_go() -> slot`` (every connection is taken: which stranger may make
    room; None = nobody) and ``make_room`` (that one has to go).

    Before the first packet: ``admits(slot) -> bool`` (the peer's address is known; asked only if
    `screening`), ``introduced(slot)`` (a proxy has told the address), ``may_shake(slot) -> bool``,
    ``waited(slot, ms)`` (it could not begin its handshake so long),
    ``shaken(slot, stream)`` (TLS is up), ``shake_later()`` (call `shake` in a turn of its own) and
    ``misled(slot, reason, detail)`` (no header, no handshake, another protocol: it is closed).
    """

    cdef Ingest ingest
    cdef Slot metrics
    cdef conn *conns
    cdef uint32_t capacity
    cdef list free_slots
    cdef int epfd
    cdef int lobby          # the epoll of strangers, watched by epfd
    cdef int listen_fds[2]  # plain, TLS
    cdef Gate gate
    cdef bint listening, accept_paused
    cdef dict streams       # TlsStream by slot
    cdef object waiting     # (slot, generation, since when) of handshakes to begin, oldest first
    cdef object blocked     # the same that the handler had no room for
    cdef uint32_t serving   # slot whose records are being acted on; its answers are gathered
    cdef bytearray gathered
    cdef int64_t shake_ns   # spent on handshakes in this turn
    cdef object wrap
    cdef readonly bint pressed
    cdef uint8_t *rbuf
    cdef uint8_t *scratch
    cdef epoll_event *events
    cdef set held_slots
    cdef size_t max_remaining, linger_ms, freed_bytes
    cdef object handler
    cdef int ack_histogram
    cdef int64_t turn_ns
    cdef int64_t heard_ns   # strangers that were there then have been read
    cdef readonly uint32_t connections, strangers
    cdef readonly int64_t mono_ms, wall_ms
    cdef public uint32_t max_connections
    cdef public bint screening  # ask whether an address may connect
    cdef public bint proxied    # connections begin with a PROXY protocol header

    def __cinit__(self, Ingest ingest, handler, Slot metrics, int ack_histogram, *,
                  size_t max_remaining=limits.MQTT_MAX_REMAINING_BYTES,
                  size_t linger_ms=limits.MQTT_CLOSE_TIMEOUT_MS, uint32_t max_connections=1 << 20):
        cdef epoll_event ev
        self.ingest = ingest
        self.handler = handler
        self.metrics = metrics
        self.ack_histogram = ack_histogram
        self.max_remaining = max_remaining
        self.linger_ms = linger_ms
        self.max_connections = max_connections
        self.listen_fds[0] = self.listen_fds[1] = -1
        self.streams = {}
        self.waiting = deque()
        self.blocked = deque()
        self.serving = NOBODY
        self.gathered = bytearray()
        self.free_slots = []
        self.held_slots = set()
        self.capacity = 0
        self.lobby = -1
        self.epfd = epoll_create1(EPOLL_CLOEXEC)
        if self.epfd >= 0:
            self.lobby = epoll_create1(EPOLL_CLOEXEC)
        if self.lobby < 0:
            raise OSError(errno, "epoll_create1 failed")
        ev.events = EPOLLIN
        ev.data.u64 = LOBBY
        if epoll_ctl(self.epfd, EPOLL_CTL_ADD, self.lobby, &ev) < 0:
            raise OSError(errno, "epoll_ctl failed")
        self.gate = Gate(self.epfd)
        # A partial frame (at most max_remaining and its header) stands before what is read next.
        self.rbuf = <uint8_t *>malloc(READ_BYTES + max_remaining + 8)
        self.scratch = <uint8_t *>malloc(SCRATCH_BYTES)
        self.events = <epoll_event *>malloc(EVENTS * sizeof(epoll_event))
        if self.rbuf == NULL or self.scratch == NULL or self.events == NULL:
            raise MemoryError("no memory for the reactor")
        self._tick()

    def __dealloc__(self):
        cdef uint32_t slot
        for slot in range(self.capacity):
            if self.conns[slot].state != FREE:
                close(self.conns[slot].fd)
                free(self.conns[slot].inp)
                free(self.conns[slot].out)
        free(self.conns)
        free(self.rbuf)
        free(self.scratch)
        free(self.events)
        if self.epfd >= 0:
            close(self.epfd)
        if self.lobby >= 0:
            close(self.lobby)

    def fileno(self):
        """Descriptor to watch for reading; call `ready` when it is."""
        return self.gate.fd

    # --- listening and accepting -------------------------------------------------------------

    def listen(self, int fd, wrap=None):
        """Starts accepting from a listening, non-blocking socket that the caller keeps open.

        wrap: for TLS; makes an SSLObject of two MemoryBIOs, as SSLContext.wrap_bio.
        """
        self.listen_fds[wrap is not None] = fd
        if wrap is not None:
            self.wrap = wrap
        self.listening = False
        self._watch_listeners(True)

    def stop_listening(self):
        """Accepts no more; established connections go on."""
        self._watch_listeners(False)
        self.listen_fds[0] = self.listen_fds[1] = -1

    cdef int _watch_listeners(self, bint on) except -1:
        cdef epoll_event ev
        cdef int which
        if on == self.listening:
            return 0
        for which in range(2):
            ev.events = EPOLLIN
            ev.data.u64 = TLS_LISTENER if which else LISTENER
            if self.listen_fds[which] >= 0 and epoll_ctl(
                    self.epfd, EPOLL_CTL_ADD if on else EPOLL_CTL_DEL, self.listen_fds[which],
                    &ev) < 0 and errno != EEXIST:
                raise OSError(errno, "cannot watch the listening socket")
        self.listening = on
        return 0

    cdef int _accept(self, bint secure) except -1:
        cdef int fd, one = 1, patience = TCP_TIMEOUT_MS, _
        cdef sockaddr_in6 address
        cdef unsigned int n
        for _ in range(ACCEPTS):
            if self.connections >= self.max_connections and not self._may_make_room():
                return 0
            n = sizeof(address)
            with nogil:
                fd = accept4(self.listen_fds[secure], &address, &n, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd < 0:
                if errno == EAGAIN:
                    return 0
                if errno in (EMFILE, ENFILE, ENOBUFS, ENOMEM):
                    self._pause_accept()
                    return 0
                continue  # the peer gave up between its SYN and our accept
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
            setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience, sizeof(patience))
            if self.connections >= self.max_connections:
                self.handler.make_room()
            self._add(fd, &address, secure)
        return 0

    cdef bint _may_make_room(self) except? -1:
        """Whether a stranger may be closed for a newcomer; else that one waits in the backlog.

        Who has only just come is heard first, and who has spoken is answered, if that is soon:
        in a storm each newcomer would else push out one that is no worse, and nobody gets in.
        """
        cdef object slot = self.handler.first_to_go() if self.strangers else None
        cdef conn *c
        if slot is not None:
            c = &self.conns[<uint32_t>slot]
            if self.turn_ns - c.came_ns >= STRANGER_GRACE_NS:
                return True
            if not c.spoke:
                return c.came_ns <= self.heard_ns  # else in the next turn
        self._pause_accept()
        return False

    cdef int _pause_accept(self) except -1:
        """No connection is left: the backlog waits until the next sweep tries again."""
        self._watch_listeners(False)
        self.accept_paused = True
        self.handler.accept_paused()
        return 0

    cdef int _add(self, int fd, const sockaddr_in6 *address, bint secure) except -1:
        cdef uint32_t slot
        cdef conn *c
        cdef epoll_event ev
        if not self.free_slots:
            self._more_slots()
        slot = self.free_slots.pop()
        self.ingest.ensure_slot(slot)
        c = &self.conns[slot]
        c.fd = fd
        c.generation += 1
        c.state = OPEN
        c.in_len = c.in_cap = c.out_off = c.out_len = c.out_cap = 0
        c.inp = c.out = NULL
        c.held = c.out_on = c.spoke = False
        c.came_ns = self.turn_ns
        c.in_on = c.stranger = True
        memset(c.address, 0, sizeof(c.address))
        if address.sin6_family == AF_INET:  # as IPv6 maps it
            c.address[10] = c.address[11] = 0xFF
            memcpy(c.address + 12, &(<const sockaddr_in *>address).sin_addr, 4)
        else:
            memcpy(c.address, &address.sin6_addr, 16)
        c.port = (<const uint8_t *>&address.sin6_port)[0] << 8  # of either family
        c.port |= (<const uint8_t *>&address.sin6_port)[1]
        c.secure = secure
        c.stage = PROXY if self.proxied else HELLO if secure else PLAIN
        c.deadline_ms = 0
        if self.screening and not self.proxied and not self.handler.admits(slot):
            c.state = FREE
            close(fd)
            self.free_slots.append(slot)
            return 0
        ev.events = EPOLLIN
        ev.data.u64 = <uint64_t>c.generation << 32 | slot
        if epoll_ctl(self.lobby, EPOLL_CTL_ADD, fd, &ev) < 0:
            c.state = FREE
            close(fd)
            self.free_slots.append(slot)
            return 0
        self.connections += 1
        self.strangers += 1
        self.handler.opened(slot)
        return 0

    cdef int _more_slots(self) except -1:
        cdef uint32_t capacity = self.capacity * 2 if self.capacity else 64
        cdef uint32_t slot
        cdef conn *more = <conn *>realloc(self.conns, capacity * sizeof(conn))
        if more == NULL:
            raise MemoryError("no memory for connections")
        memset(more + self.capacity, 0, (capacity - self.capacity) * sizeof(conn))
        self.conns = more
        for slot in range(self.capacity, capacity):
            self.free_slots.append(slot)
        self.capacity = capacity
        return 0

    # --- one turn of the loop ----------------------------------------------------------------

    cdef int _tick(self) except -1:
        cdef int64_t mono = now_ns(CLOCK_MONOTONIC)
        self.turn_ns = mono
        self.mono_ms = mono // 1000000
        self.ingest.set_time(now_ns(CLOCK_REALTIME) // 1000000, mono)
        self.wall_ms = self.ingest.context.wall_ms
        return 0

    def tick(self):
        """Takes the time, for messages that do not come from a socket turn."""
        self._tick()

    def ready(self):
        """Serves every ready socket once."""
        cdef int n, i
        cdef bint visitors = False
        cdef int64_t began
        if self.gate.closed:
            self.gate.open()
        with nogil:
            n = epoll_wait(self.epfd, self.events, EVENTS, 0)
        self._tick()
        self.shake_ns = 0
        began = self.turn_ns
        for i in range(n):
            if self.events[i].data.u64 == LOBBY:
                visitors = True
            elif self.events[i].data.u64 >= TLS_LISTENER:
                if self.listening:
                    self._accept(self.events[i].data.u64 == TLS_LISTENER)
            else:
                self._serve(&self.events[i])
        if not visitors and n < EVENTS:
            self.heard_ns = began - 1  # who came in this turn has not been asked
        if visitors:
            with nogil:
                n = epoll_wait(self.lobby, self.events, STRANGERS, 0)
            for i in range(n):
                self._serve(&self.events[i])
            if n < STRANGERS:
                self.heard_ns = began
        if self.waiting or self.blocked:
            self._begin_waiting()
        if self.ingest.group.g.messages:
            self.handler.turn_ended()
            self.gate.rest(began)

    cdef int _serve(self, const epoll_event *ev) except -1:
        """What epoll has said about a connection."""
        cdef uint32_t slot = <uint32_t>(ev.data.u64 & 0xFFFFFFFF)
        cdef uint32_t generation = <uint32_t>(ev.data.u64 >> 32)
        cdef uint32_t what = ev.events
        try:
            if what & EPOLLOUT and self._is(slot, generation):
                self._flush(slot)
            if what & (EPOLLIN | EPOLLHUP | EPOLLERR) and self._is(slot, generation):
                self._read(slot)
        except Exception as error:
            self._fault(slot, generation, error)
        return 0

    @property
    def held(self):
        """Connections whose input waits until the store has caught up."""
        return len(self.held_slots)

    cdef int _fault(self, uint32_t slot, uint32_t generation, error) except -1:
        """Our own fault while serving a connection: where its input continues is not known any
        more, so it ends; the others are served on."""
        self.handler.fault(slot, error)
        if self._is(slot, generation):
            self._lost(slot, "aborted")
        return 0

    cdef inline bint _is(self, uint32_t slot, uint32_t generation) noexcept:
        return (slot < self.capacity and self.conns[slot].state != FREE
                and self.conns[slot].generation == generation)

    cdef int _read(self, uint32_t slot) except -1:
        cdef conn *c = &self.conns[slot]
        cdef size_t kept = c.in_len
        cdef size_t room = PRESSED_READ_BYTES if self.pressed else READ_BYTES
        cdef ssize_t n
        cdef uint32_t generation
        if c.held:  # only an error or hang-up brings us here: the input must not be touched
            self._lost(slot)
            return 0
        if c.stage == HELLO and c.state == OPEN:
            return self._wait_to_shake(slot)
        if c.stage == SHAKING and self.shake_ns > SHAKE_NS:
            return 0  # epoll reports it again in the next turn
        if c.secure and room > SEALED_READ_BYTES:
            room = SEALED_READ_BYTES
        with nogil:
            if kept:
                memcpy(self.rbuf, c.inp, kept)
            n = recv(c.fd, self.rbuf + kept, room, MSG_DONTWAIT)
        if n < 0:
            if errno != EAGAIN and errno != EINTR:
                self._lost(slot)
            return 0
        if n == 0:
            self._lost(slot)
            return 0
        if c.state != OPEN:
            return 0  # lingering: discard
        c.in_len = 0
        self.metrics.inc(RECEIVED_BYTES_MQTT, <uint64_t>n)
        if c.stranger:
            generation = c.generation
            c.spoke = True
            self.handler.stranger_sent(slot, n)
            c = &self.conns[slot]
            if not self._is(slot, generation) or c.state != OPEN:
                return 0
        if c.stage == PLAIN:
            return self._process(slot, self.rbuf, kept + <size_t>n)
        if c.stage == PROXY:
            return self._introduce(slot, kept + <size_t>n)
        if c.stage == SHAKING:
            return self._shake(slot, kept + <size_t>n)
        return self._open_records(slot, kept, <size_t>n)

    cdef int _process(self, uint32_t slot, uint8_t *p, size_t n) except -1:
        """Acts on every complete packet at p and keeps what is left."""
        cdef uint32_t generation = self.conns[slot].generation
        cdef size_t at = 0, used, total
        cdef uint32_t acted = 0
        cdef tbf_walk_end end
        cdef tbf_frame frame
        cdef tbf_status status
        self.ingest.look_at_rates()
        while at < n:
            if self.pressed and (p[at] & 0xF0) == 0x30 and self.ingest.sessions[slot].hot:
                self._hold(slot)
                break
            if acted == PACKETS:  # others have their turn first
                self._hold(slot)
                self.handler.resume_later()
                break
            if self.ingest.sessions[slot].hot:
                with nogil:
                    end = tbf_walk(&self.ingest.context, &self.ingest.sessions[slot], slot,
                                   p + at, n - at, &used)
                at += used
                if end == TBF_WALK_GROW:
                    self.ingest.grow()
                    continue
                if end == TBF_WALK_GROUP_FULL:
                    self.handler.group_full()
                    self._tick()
                    if not self._is(slot, generation) or self.conns[slot].state != OPEN:
                        return 0
                    continue
                if end == TBF_WALK_DONE:
                    break
                if end == TBF_WALK_LIMITED:
                    self.handler.limited(slot)
                    return 0
            status = tbf_mqtt_frame(p + at, n - at, self.max_remaining, &frame)
            if status == TBF_MORE:
                break
            # What cannot be a packet goes to the engine as well: it names the error and closes.
            total = frame.total if status == TBF_OK else n - at
            self.handler.received(
                slot, PyMemoryView_FromMemory(<char *>p + at, <Py_ssize_t>total, 0x100))
            at += total
            acted += 1
            if (self.ingest.batch.b.len >= self.ingest.context.rows_limit
                    or self.ingest.group.g.ack_count >= TBF_GROUP_ACKS):
                self.handler.group_full()
                self._tick()
            if not self._is(slot, generation) or self.conns[slot].state != OPEN:
                return 0
        return self._keep(slot, p + at, n - at)

    # --- before the first packet ---------------------------------------------------------------

    cdef int _introduce(self, uint32_t slot, size_t n) except -1:
        """Reads a proxy's header at the start of rbuf; bytes behind it are the connection's."""
        cdef conn *c = &self.conns[slot]
        cdef uint32_t generation = c.generation
        cdef tbf_proxy found
        cdef tbf_status status = tbf_proxy_read(self.rbuf, n, &found)
        if status == TBF_MORE:
            return self._keep(slot, self.rbuf, n)
        if status != TBF_OK:
            return self._mislead(slot, "malformed", "no PROXY protocol header")
        if not found.has_source:
            return self._lost(slot)  # a health check of the proxy itself
        memcpy(c.address, found.address, 16)
        c.port = found.port
        c.stage = HELLO if c.secure else PLAIN
        if self.screening and not self.handler.admits(slot):
            return self._lost(slot, "aborted")
        self.handler.introduced(slot)
        if not self._is(slot, generation) or self.conns[slot].state != OPEN:
            return 0
        n -= found.total
        if not self.conns[slot].secure:
            return self._process(slot, self.rbuf + found.total, n)
        self._keep(slot, self.rbuf + found.total, n)
        return self._wait_to_shake(slot) if n else 0

    cdef int _mislead(self, uint32_t slot, str reason, str detail) except -1:
        self.handler.misled(slot, reason, detail)
        return self._lost(slot, "aborted")

    cdef int _wait_to_shake(self, uint32_t slot) except -1:
        """Handshakes begin at the end of the turn, oldest first, and only so many at a time."""
        cdef conn *c = &self.conns[slot]
        c.held = True
        c.deadline_ms = 0  # what it waits for us is not its own delay
        self._interest(slot)
        self.waiting.append((slot, c.generation, self.mono_ms))
        return 0

    cdef int _begin_waiting(self) except -1:
        """Begins handshakes; what the turn has no time for is left to the next, what the handler
        has no room for to the end of another handshake."""
        cdef uint32_t slot, generation
        cdef int64_t since_ms
        while self.blocked and self.shake_ns <= SHAKE_NS:
            slot, generation, since_ms = self.blocked[0]
            if not self._begin(slot, generation, since_ms):
                break
            self.blocked.popleft()
        while self.waiting and self.shake_ns <= SHAKE_NS:
            slot, generation, since_ms = self.waiting[0]
            if not self._begin(slot, generation, since_ms):
                self.blocked.append(self.waiting[0])
            self.waiting.popleft()
        if self.waiting:
            self.handler.shake_later()
        return 0

    cdef bint _begin(self, uint32_t slot, uint32_t generation, int64_t since_ms) except -1:
        """Begins a handshake, due since then, if the connection is still there; False = not yet."""
        cdef conn *c
        cdef size_t n
        if not self._is(slot, generation) or self.conns[slot].state != OPEN:
            return True
        try:
            if self.mono_ms - since_ms > HANDSHAKE_WAIT_MS:
                self.handler.timed_out(slot)
                return True
            if not self.handler.may_shake(slot):
                return False
            self.handler.waited(slot, self.mono_ms - since_ms)
            c = &self.conns[slot]
            c.held = False
            c.stage = SHAKING
            self.streams[slot] = TlsStream(self.wrap)
            self._interest(slot)
            if c.in_len:
                n = c.in_len
                c.in_len = 0
                memcpy(self.rbuf, c.inp, n)
                self._keep(slot, NULL, 0)
                self._shake(slot, n)
            else:
                self._read(slot)
        except Exception as error:
            self._fault(slot, generation, error)
        return True

    def shake(self):
        """Begins handshakes that wait; see `handler.shake_later`."""
        self._tick()
        self.shake_ns = 0
        self._begin_waiting()

    cdef int _shake(self, uint32_t slot, size_t n) except -1:
        """Goes on with the handshake by the n bytes in rbuf."""
        cdef TlsStream stream = <TlsStream>self.streams[slot]
        cdef int64_t began = now_ns(CLOCK_MONOTONIC)
        cdef uint32_t generation = self.conns[slot].generation
        cdef tls_end end
        if not stream.begun:
            if self.rbuf[0] != HANDSHAKE_RECORD:
                return self._mislead(slot, "wrong_port", "not TLS on the port for TLS")
            stream.begun = True
        stream.feed(self.rbuf, n)
        end = stream.handshake()
        if not self._pass_on(slot, stream.unsent()):
            return 0
        self.shake_ns += now_ns(CLOCK_MONOTONIC) - began
        if end == TLS_MORE:
            return 0
        if end == TLS_FAILED:
            self.handler.misled(slot, "tls", f"TLS handshake: {stream.error}")
            self.conns[slot].stage = PLAIN  # nothing more is sealed; what is unsent is an alert
            return self._finish_now(slot)
        self.conns[slot].stage = SEALED
        self.handler.shaken(slot, stream)
        self.shake_ns += now_ns(CLOCK_MONOTONIC) - began
        if not self._is(slot, generation) or self.conns[slot].state != OPEN:
            return 0
        return self._open_records(slot, 0, 0)  # packets may have come with the last flight

    cdef int _open_records(self, uint32_t slot, size_t kept, size_t n) except -1:
        """Plaintext of the n bytes behind `kept` in rbuf, behind what is kept of a packet."""
        cdef TlsStream stream = <TlsStream>self.streams[slot]
        cdef uint32_t generation = self.conns[slot].generation
        cdef Py_ssize_t got
        if n:
            stream.feed(self.rbuf + kept, n)
        got = stream.take(self.rbuf + kept, READ_BYTES)
        if not self._pass_on(slot, stream.unsent()):
            return 0
        if got > 0:
            self.serving = slot
            try:
                self._process(slot, self.rbuf, kept + <size_t>got)
                self._send_gathered()
            finally:
                self.serving = NOBODY
                self.gathered.clear()
        elif got == 0:
            self.conns[slot].in_len = <uint32_t>kept  # it still lies in `inp`
        if not self._is(slot, generation) or self.conns[slot].state != OPEN:
            return 0
        if stream.error is not None:
            self.handler.misled(slot, "tls", f"TLS: {stream.error}")
            return self._finish_now(slot)
        if got < 0:
            return self._lost(slot)
        return 0

    cdef int _send_gathered(self) except -1:
        """Answers to the records being acted on, in one record of ours."""
        cdef uint32_t slot = self.serving
        if not self.gathered:
            return 0
        if not self._seal(slot, NULL, 0):
            return self._lost(slot, "slow_consumer" if self.conns[slot].out_len else "lost")
        return self._interest(slot)

    cdef bint _pass_on(self, uint32_t slot, bytes data) except -1:
        """Sends what TLS itself has to say; False = the connection is lost."""
        if not data:
            return True
        if not self._send(&self.conns[slot], <const uint8_t *><const char *>data,
                          <size_t>len(data)):
            self._lost(slot)
            return False
        self._interest(slot)
        return True

    cdef int _keep(self, uint32_t slot, const uint8_t *p, size_t n) except -1:
        """Copies unconsumed input aside; memory follows bytes received, never bytes announced."""
        cdef conn *c = &self.conns[slot]
        cdef uint8_t *more
        if n == 0:
            free(c.inp)
            c.inp = NULL
            c.in_len = c.in_cap = 0
            return 0
        if n > c.in_cap:
            more = <uint8_t *>realloc(c.inp, n)
            if more == NULL:
                raise MemoryError("no memory for a partial packet")
            c.inp = more
            c.in_cap = <uint32_t>n
        memcpy(c.inp, p, n)
        c.in_len = <uint32_t>n
        return 0

    # --- back-pressure -----------------------------------------------------------------------

    cdef int _hold(self, uint32_t slot) except -1:
        cdef conn *c = &self.conns[slot]
        c.held = True
        self.held_slots.add(slot)
        self._interest(slot)
        return 0

    def press(self, bint on):
        """on: the bound of rows that are not durable is reached, publishers are not read.

        Held input is taken up by `resume`, which the handler calls from a loop turn of its own:
        this method may be running inside the processing of another connection.
        """
        self.pressed = on
        if not on and self.held_slots:
            self.handler.resume_later()

    def resume(self):
        """Processes the input of held connections until the bound is reached again.

        Those that are held once more wait for the next turn.
        """
        cdef uint32_t slot, generation
        cdef size_t n
        cdef conn *c
        self._tick()
        for held in list(self.held_slots):
            if self.pressed:
                break
            if held not in self.held_slots:
                continue  # closed by what another one did
            slot = held
            self.held_slots.discard(slot)
            c = &self.conns[slot]
            generation = c.generation
            try:
                c.held = False
                self._interest(slot)
                n = c.in_len
                c.in_len = 0
                memcpy(self.rbuf, c.inp, n)
                self._process(slot, self.rbuf, n)
            except Exception as error:
                self._fault(slot, generation, error)
        if self.ingest.group.g.messages:
            self.handler.turn_ended()

    # --- output ------------------------------------------------------------------------------

    cdef int _interest(self, uint32_t slot) except -1:
        """Brings epoll's interest in line with the connection's state."""
        cdef conn *c = &self.conns[slot]
        cdef bint want_in = (c.state == LINGERING or c.state == OPEN) and not c.held \
            and c.out_len <= OUTBOUND_PAUSE_BYTES
        cdef bint want_out = c.out_len > 0
        if want_in == c.in_on and want_out == c.out_on:
            return 0
        c.in_on = want_in
        c.out_on = want_out
        return self._watch(slot, self.lobby if c.stranger else self.epfd, EPOLL_CTL_MOD)

    cdef int _watch(self, uint32_t slot, int epfd, int op) except -1:
        cdef conn *c = &self.conns[slot]
        cdef epoll_event ev
        ev.events = (EPOLLIN if c.in_on else 0) | (EPOLLOUT if c.out_on else 0)
        ev.data.u64 = <uint64_t>c.generation << 32 | slot
        if epoll_ctl(epfd, op, c.fd, &ev) < 0:
            raise OSError(errno, "epoll_ctl failed")
        return 0

    cdef bint _send(self, conn *c, const uint8_t *p, size_t n) noexcept nogil:
        """Sends or queues; False = the connection is lost or over its outbound bound."""
        cdef ssize_t sent = 0
        cdef uint8_t *more
        cdef size_t cap
        self.metrics.inc(SENT_BYTES_MQTT, n)
        if c.out_len == 0:
            sent = send(c.fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent < 0:
                if errno != EAGAIN and errno != EINTR:
                    return False
                sent = 0
            if <size_t>sent == n:
                return True
            c.progress_ms = self.mono_ms
            c.out_off = 0
        n -= <size_t>sent
        p += sent
        if c.out_len + n > OUTBOUND_BYTES:
            return False
        if c.out_off and c.out_off + c.out_len + n > c.out_cap:
            unsent_to_front(c)
        if c.out_len + n > c.out_cap:
            cap = c.out_len + n + 1024
            more = <uint8_t *>realloc(c.out, cap)
            if more == NULL:
                return False
            c.out = more
            c.out_cap = <uint32_t>cap
        memcpy(c.out + c.out_off + c.out_len, p, n)
        c.out_len += <uint32_t>n
        return True

    cdef bint _seal(self, uint32_t slot, const uint8_t *p, size_t n) noexcept:
        """`_send` through TLS, behind what is gathered for the same connection."""
        cdef bytes data
        cdef bytearray whole
        try:
            if slot == self.serving and self.gathered:
                whole = self.gathered
                self.gathered = bytearray()
                whole += (<const char *>p)[:n] if n else b""
                p = <const uint8_t *><const char *>whole
                n = <size_t>len(whole)
            data = (<TlsStream>self.streams[slot]).seal(p, n)
        except Exception as error:
            self.handler.fault(slot, error)
            return False
        return self._send(&self.conns[slot], <const uint8_t *><const char *>data,
                          <size_t>len(data))

    def send(self, uint32_t slot, bytes data):
        """Sends bytes to the peer, queueing what its window does not take (bounded)."""
        cdef conn *c = &self.conns[slot]
        cdef const uint8_t *p = <const uint8_t *><const char *>data
        if slot >= self.capacity or c.state not in (OPEN, DRAINING):
            return
        if slot == self.serving:
            self.gathered += data
            if len(self.gathered) > GATHER_BYTES:
                self._send_gathered()
            return
        if not (self._seal(slot, p, <size_t>len(data)) if c.stage == SEALED
                else self._send(c, p, <size_t>len(data))):
            self._lost(slot, "slow_consumer" if c.out_len else "lost")
            return
        self._interest(slot)

    cdef int _flush(self, uint32_t slot) except -1:
        cdef conn *c = &self.conns[slot]
        cdef ssize_t sent
        if c.out_len:
            sent = send(c.fd, c.out + c.out_off, c.out_len, MSG_DONTWAIT | MSG_NOSIGNAL)
            if sent < 0:
                if errno != EAGAIN and errno != EINTR:
                    self._lost(slot)
                return 0
            c.out_off += <uint32_t>sent
            c.out_len -= <uint32_t>sent
            c.progress_ms = self.mono_ms
        if c.out_len == 0:
            free(c.out)
            c.out = NULL
            c.out_off = c.out_cap = 0
            if c.state == DRAINING:
                return self._linger(slot)
        return self._interest(slot)

    # --- commits -----------------------------------------------------------------------------

    def complete(self, Group group):
        """The group is durable: sends every answer it owes, one send per connection."""
        cdef uint32_t i, index, slot, n
        cdef tbf_touched *t
        cdef tbf_owed *ack
        cdef tbf_session *s
        cdef conn *c
        cdef bint ok
        cdef int64_t now = now_ns(CLOCK_MONOTONIC)
        cdef uint32_t now_us = <uint32_t>((now - group.opened_ns) // 1000)
        cdef list quiet = [], lost = []
        self.mono_ms = now // 1000000
        for i in range(group.g.touched_count):
            t = &group.g.touched[i]
            slot = t.slot
            s = &self.ingest.sessions[slot]
            if t.count == 0 or s.generation != t.generation or slot >= self.capacity:
                continue
            c = &self.conns[slot]
            if c.state != OPEN and c.state != DRAINING:
                continue
            with nogil:
                ok = True
                index = t.first
                n = 0
                while index and ok:
                    ack = &group.g.acks[index - 1]
                    self.metrics.observe(self.ack_histogram,
                                         <uint64_t>(now_us - ack.read_us) * 1000)
                    n += <uint32_t>tbf_mqtt_put_ack(self.scratch + n, ack.type, ack.packet_id)
                    index = ack.next
                    if index == 0 or n > SCRATCH_BYTES - 8:
                        if c.stage == SEALED:
                            with gil:
                                ok = self._seal(slot, self.scratch, n)
                        else:
                            ok = self._send(c, self.scratch, n)
                        n = 0
            s.awaiting -= t.count
            if not ok:
                lost.append(slot)
                continue
            if c.out_len:
                self._interest(slot)
            if s.awaiting == 0 and not s.hot:
                quiet.append(slot)
        for slot in lost:
            self._lost(slot, "slow_consumer" if self.conns[slot].out_len else "lost")
        for slot in quiet:
            try:
                self.handler.drained(slot)
            except Exception as error:
                self._fault(slot, self.conns[slot].generation, error)

    def fail(self, Group group):
        """The group was not stored: nothing is answered, the handler hears which sessions wait."""
        cdef uint32_t i
        cdef tbf_touched *t
        for i in range(group.g.touched_count):
            t = &group.g.touched[i]
            if t.count and self.ingest.sessions[t.slot].generation == t.generation:
                self.ingest.sessions[t.slot].awaiting -= t.count
                try:
                    self.handler.refused(t.slot)
                except Exception as error:
                    self._fault(t.slot, self.conns[t.slot].generation, error)

    # --- the end of a connection -------------------------------------------------------------

    def finish(self, uint32_t slot):
        """Acts on no more input; closes once the output is sent."""
        if slot < self.capacity and self.conns[slot].state == OPEN:
            self._finish_now(slot)

    cdef int _finish_now(self, uint32_t slot) except -1:
        cdef conn *c = &self.conns[slot]
        cdef uint32_t generation = c.generation
        if slot == self.serving:
            self._send_gathered()
            if not self._is(slot, generation):
                return 0
        c.state = DRAINING
        c.held = False
        self.held_slots.discard(slot)
        c.deadline_ms = self.mono_ms + <int64_t>self.linger_ms
        self.freed_bytes += c.in_cap
        free(c.inp)
        c.inp = NULL
        c.in_len = c.in_cap = 0
        if c.out_len == 0:
            return self._linger(slot)
        return self._interest(slot)

    cdef int _linger(self, uint32_t slot) except -1:
        """Shuts our side and discards input until the peer closes: a close with unread input sends
        RST, which can overtake and destroy the last packet we sent."""
        cdef conn *c = &self.conns[slot]
        cdef TlsStream stream
        cdef bytes farewell
        if c.stage == SEALED:
            stream = <TlsStream>self.streams[slot]
            farewell = stream.farewell()
            send(c.fd, <const char *>farewell, <size_t>len(farewell), MSG_DONTWAIT | MSG_NOSIGNAL)
        self.streams.pop(slot, None)
        c.state = LINGERING
        self.accepted(slot)
        shutdown(c.fd, SHUT_WR)
        self.ingest.close(slot)
        self.handler.closed(slot, "finished")
        return self._interest(slot)

    def abort(self, uint32_t slot):
        """Closes at once; unsent output is dropped."""
        if slot < self.capacity and self.conns[slot].state != FREE:
            self._lost(slot, "aborted")

    cdef int _lost(self, uint32_t slot, str reason="lost") except -1:
        cdef conn *c = &self.conns[slot]
        cdef bint told = c.state == LINGERING
        close(c.fd)
        self.freed_bytes += c.in_cap + c.out_cap
        free(c.inp)
        free(c.out)
        c.inp = c.out = NULL
        c.fd = -1
        if slot == self.serving:
            self.gathered.clear()
        self.streams.pop(slot, None)
        self.accepted(slot)
        c.state = FREE
        self.connections -= 1
        self.held_slots.discard(slot)
        self.free_slots.append(slot)
        if not told:
            self.ingest.close(slot)
            self.handler.closed(slot, reason)
        return 0

    # --- time --------------------------------------------------------------------------------

    def set_deadline(self, uint32_t slot, int64_t mono_ms):
        """When to call `timed_out`; 0 = never.  Checked by `sweep`."""
        if slot < self.capacity and self.conns[slot].state == OPEN:
            self.conns[slot].deadline_ms = mono_ms

    def sweep(self):
        """Finds expired deadlines and stuck writers; called a few times a second."""
        cdef uint32_t slot
        cdef conn *c
        self._tick()
        if self.freed_bytes >= TRIM_BYTES:
            # The heap keeps pages between what lives on: an attack would weigh on us for ever.
            self.freed_bytes = 0
            with nogil:
                give_back_free_pages()
        if self.accept_paused and (self.strangers or self.connections < self.max_connections):
            self.accept_paused = False
            self._watch_listeners(True)
        if self.waiting or self.blocked:
            self.shake()
        for slot in range(self.capacity):
            c = &self.conns[slot]
            if c.state == FREE:
                continue
            if c.out_len and self.mono_ms - c.progress_ms > WRITE_TIMEOUT_MS:
                self._lost(slot, "slow_consumer")
            elif c.deadline_ms and c.deadline_ms <= self.mono_ms:
                c.deadline_ms = 0
                if c.state == OPEN:
                    try:
                        self.handler.timed_out(slot)
                    except Exception as error:
                        self._fault(slot, c.generation, error)
                else:
                    self._lost(slot, "finished")

    def drop_unread(self):
        """Closes connections that have left answers unread; returns how many."""
        cdef uint32_t slot, dropped = 0
        for slot in range(self.capacity):
            if self.conns[slot].state == OPEN and self.conns[slot].out_len:
                self._lost(slot, "slow_consumer")
                dropped += 1
        return dropped

    def accepted(self, uint32_t slot):
        """A session was accepted there: the connection is no stranger any more."""
        cdef conn *c = &self.conns[slot]
        if slot >= self.capacity or c.state == FREE or not c.stranger:
            return
        c.stranger = False
        self.strangers -= 1
        if c.fd >= 0:
            self._watch(slot, self.lobby, EPOLL_CTL_DEL)
            self._watch(slot, self.epfd, EPOLL_CTL_ADD)

    def address(self, uint32_t slot):
        """What a peer is known by when quotas are shared out: its IPv4 address (4 bytes), or the
        first half of its IPv6 address (8), all of which one subscriber has."""
        cdef bytes whole
        if slot >= self.capacity or self.conns[slot].state == FREE:
            return b""
        whole = (<const char *>self.conns[slot].address)[:16]
        return whole[12:] if whole.startswith(V4_MAPPED) else whole[:8]

    def peer(self, uint32_t slot):
        """Address of the peer, for logs: "192.0.2.1:50000"."""
        if slot >= self.capacity or self.conns[slot].state == FREE:
            return "-"
        found = ipaddress.ip_address((<const char *>self.conns[slot].address)[:16])
        if found.ipv4_mapped is not None:
            return f"{found.ipv4_mapped}:{self.conns[slot].port}"
        return f"[{found}]:{self.conns[slot].port}"

    def close_all(self):
        """Closes every connection at once (the end of a stop)."""
        cdef uint32_t slot
        for slot in range(self.capacity):
            if self.conns[slot].state != FREE:
                self._lost(slot, "stopped")
