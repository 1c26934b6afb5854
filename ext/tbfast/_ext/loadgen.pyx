"""Many MQTT devices in one thread, for load tests: sockets, epoll and pacing without the GIL.

Python (tbfast.loadgen) prepares the bytes of every CONNECT and of one PUBLISH, decides the phases
of a test and calls `run` in slices; nothing here allocates per message.
"""

cimport cython
from libc.errno cimport EAGAIN, EINPROGRESS, EINTR, errno
from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove

import os

from tbfast._ext.hist cimport Histogram, tbf_hist_record

cdef enum:
    EVENTS = 512
    READ_BYTES = 65536
    STASH_BYTES = 512          # longest packet a server may send us in pieces
    LEDGER_BYTES = 1 << 18
    LEDGER_LINE_BYTES = 512    # longest line: prefix (bounded by Python) and two numbers
    CONNECT_BURST = 64         # connections being made at once: listen queues of 100 are common
    RETRY_NS = 100000000       # a lost connection is made again after this
    RETRY_SCAN_NS = 20000000
    RECEIVE_MAXIMUM = 33       # MQTT 5 3.2.2.3.3

cdef enum conn_state:
    NEW = 0
    CONNECTING = 1  # TCP
    GREETING = 2    # CONNECT is sent, CONNACK is awaited
    READY = 3
    WAITING = 4     # for the time to connect again
    GONE = 5

cpdef enum Flow:
    """Who decides when a device sends."""
    PAUSED = 0
    CLOSED = 1  # the next round when all messages of the last one are acknowledged
    OPEN = 2    # a clock; a slow server does not slow it down

cpdef enum Goal:
    """What ends `run` before its time."""
    NOTHING = 0
    CONNECTED = 1  # no connection is being made any more
    QUIET = 2      # no message waits for its acknowledgement

cdef struct conn:
    int fd
    uint8_t state
    bint out_on            # EPOLLOUT is registered
    uint16_t in_len
    uint32_t connect_n
    uint32_t prefix_n
    const uint8_t *connect
    const uint8_t *prefix  # of a ledger line
    uint64_t seq           # messages begun
    uint64_t scheduled     # messages begun since the open loop was started
    uint8_t *out           # what the kernel did not take
    size_t out_off, out_n, out_cap
    int64_t since_ns       # start of the connection attempt, or when to make the next
    tbf_load_window w
    uint8_t inp[STASH_BYTES]

cdef inline int64_t now_ns() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec


@cython.final
cdef class Template:
    """An encoded PUBLISH and the places where every copy differs.

    id_at and ts_at: offsets of the packet identifier and of the 13 digits of ``ts``, 0 for none;
    values: offsets of two digits each.
    """

    cdef tbf_load_template t
    cdef bytes frame
    cdef uint32_t *places

    def __cinit__(self, bytes frame, *, size_t id_at, size_t ts_at, values):
        cdef size_t n = len(frame), i
        for at, width in [(id_at, 2), (ts_at, TBF_LOAD_TS_DIGITS),
                          *((v, TBF_LOAD_VALUE_DIGITS) for v in values)]:
            if at < 0 or n < width or n - width < at:
                raise ValueError("a place lies outside the frame")
        self.frame = frame
        self.places = <uint32_t *>malloc(max(1, len(values)) * sizeof(uint32_t))
        if not self.places:
            raise MemoryError
        for i, at in enumerate(values):
            self.places[i] = at
        self.t.frame = <const uint8_t *><const char *>frame
        self.t.n = n
        self.t.id_at = id_at
        self.t.ts_at = ts_at
        self.t.values = self.places
        self.t.value_count = len(values)

    def __dealloc__(self):
        free(self.places)


@cython.final
cdef class Generator:
    """A fleet of MQTT clients.

    address, sources: packed sockaddr of the server and of local addresses to connect from (device
    i uses the i-th, cyclically; none: the kernel chooses).  connects: one encoded CONNECT per
    device.  marker: the QoS 1 message of `send_markers`.  window: messages a device may have in
    flight; in the closed loop also the size of a round.  burst: messages of a device that the open
    loop makes due at once.  ledger_fd: acknowledged messages are
    appended there as lines ``<prefix of the device><ts>,"seq":<n>}``, at the latest when the turn
    of the loop that read the acknowledgement ends.

    Latency counts from the time the message should have been sent, for messages that should have
    been sent in the measured interval.  Times are nanoseconds of CLOCK_MONOTONIC.
    """

    cdef conn *conns
    cdef tbf_load_slot *slots
    cdef uint8_t *rbuf
    cdef uint8_t *scratch
    cdef uint8_t *lines
    cdef epoll_event *events
    cdef size_t lines_n, burst_bytes
    cdef uint32_t count, next_new, pending, waiting
    cdef int epfd, ledger_fd, ledger_errno
    cdef uint8_t version, qos
    cdef uint16_t burst
    cdef bint reconnect
    cdef uint64_t first_ts_ms
    cdef Template publish, marker
    cdef bytes address, sources
    cdef const sockaddr *address_p
    cdef const char *source_p
    cdef unsigned int address_n, source_n, source_count
    cdef list connects, prefixes
    cdef Flow flow
    cdef double interval_ns        # between two bursts of the fleet
    cdef int64_t open_ns, from_ns, until_ns, retry_scan_ns
    cdef readonly uint64_t due, begun
    cdef uint64_t refusals[256]
    cdef readonly Histogram latency, lag, connect_time
    cdef readonly uint32_t ready
    cdef readonly uint64_t sent, acked, refused, stray, lost, in_flight, abandoned, connect_failed
    cdef readonly uint64_t reconnects, broken
    cdef readonly int last_errno, last_disconnect

    def __cinit__(self, *, bytes address, list sources, list connects, Template publish,
                  Template marker, uint8_t version, uint8_t qos, uint16_t window, bint reconnect,
                  uint64_t first_ts_ms, uint16_t burst=1, int ledger_fd=-1, list prefixes=None):
        cdef uint32_t i, n = len(connects)
        cdef bytes text
        self.epfd = -1
        prefixes = prefixes or []
        if n == 0 or window == 0 or burst == 0 or (ledger_fd >= 0 and len(prefixes) != n):
            raise ValueError("no devices, window or burst, or a ledger without a prefix per device")
        if any(len(prefix) > LEDGER_LINE_BYTES // 2 for prefix in prefixes):
            raise ValueError("a prefix of a ledger line is too long")
        self.count = n
        self.address, self.sources, self.connects = address, b"".join(sources), connects
        self.address_p = <const sockaddr *><const char *>self.address
        self.source_p = self.sources
        self.address_n = len(address)
        self.source_count = len(sources)
        self.source_n = len(sources[0]) if sources else 0
        self.publish, self.marker = publish, marker
        self.prefixes = prefixes
        self.version, self.qos, self.reconnect = version, qos, reconnect
        self.first_ts_ms = first_ts_ms
        self.burst = burst
        self.ledger_fd = ledger_fd
        self.last_disconnect = -1
        self.until_ns = INT64_MAX
        self.latency, self.lag, self.connect_time = Histogram(), Histogram(), Histogram()
        # A round and its PUBRELs are written with one send.
        self.burst_bytes = window * (max(publish.t.n, marker.t.n) + 4)
        if self.burst_bytes < READ_BYTES:
            self.burst_bytes = READ_BYTES
        self.conns = <conn *>calloc(n, sizeof(conn))
        self.slots = <tbf_load_slot *>calloc(<size_t>n * window, sizeof(tbf_load_slot))
        self.rbuf = <uint8_t *>malloc(READ_BYTES + STASH_BYTES)
        self.scratch = <uint8_t *>malloc(self.burst_bytes + READ_BYTES)
        self.lines = <uint8_t *>malloc(LEDGER_BYTES)
        self.events = <epoll_event *>malloc(EVENTS * sizeof(epoll_event))
        if not (self.conns and self.slots and self.rbuf and self.scratch and self.lines
                and self.events):
            raise MemoryError
        for i in range(n):
            text = connects[i]
            self.conns[i].fd = -1
            self.conns[i].connect = <const uint8_t *><const char *>text
            self.conns[i].connect_n = <uint32_t>len(text)
            if ledger_fd >= 0:
                text = self.prefixes[i]
                self.conns[i].prefix = <const uint8_t *><const char *>text
                self.conns[i].prefix_n = <uint32_t>len(text)
            tbf_load_window_init(&self.conns[i].w, &self.slots[<size_t>i * window], window)
        self.epfd = epoll_create1(EPOLL_CLOEXEC)
        if self.epfd < 0:
            raise OSError(errno, "epoll_create1")

    def __dealloc__(self):
        cdef uint32_t i
        if self.conns:
            for i in range(self.count):
                if self.conns[i].fd >= 0 and self.conns[i].state != NEW:
                    close(self.conns[i].fd)
                free(self.conns[i].out)
        if self.epfd >= 0:
            close(self.epfd)
        free(self.conns)
        free(self.slots)
        free(self.rbuf)
        free(self.scratch)
        free(self.lines)
        free(self.events)

    # --- for Python --------------------------------------------------------------------------

    def set_flow(self, Flow flow, double rate=0.0):
        """Starts or pauses sending; rate: messages a second over all devices (OPEN)."""
        cdef uint32_t i
        if flow == OPEN:
            if not rate > 0.0:
                raise ValueError("an open loop needs a rate")
            self.interval_ns = 1e9 / rate * self.burst
            self.open_ns = now_ns()
            self.due = self.begun = 0
            for i in range(self.count):
                self.conns[i].scheduled = 0
            prctl(PR_SET_TIMERSLACK, 1000)  # the default of 50 us would be measured as latency
        self.flow = flow
        for i in range(self.count):
            with nogil:
                self._top_up(&self.conns[i], now_ns(), 0)

    def measure(self, int64_t from_ns, int64_t until_ns):
        """Latency is recorded for messages intended in this interval; forgets former values.

        The open loop ends with it: nothing intended later is sent.
        """
        self.latency.clear()
        self.lag.clear()
        self.from_ns, self.until_ns = from_ns, until_ns

    def send_markers(self):
        """One QoS 1 message on every connection (while paused); Goal.QUIET tells when the server
        has consumed it and with it everything before."""
        cdef uint32_t i
        cdef tbf_load_slot *s
        cdef conn *c
        cdef int64_t now = now_ns()
        for i in range(self.count):
            c = &self.conns[i]
            if c.state == READY:
                with nogil:
                    s = tbf_load_begin(&c.w, TBF_LOAD_PUBACK)
                    if s:
                        self.in_flight += 1
                        s.marker = True
                        self._put(c, s, now, 0)
                        self._emit(c, self.scratch, self.marker.t.n)

    def run(self, int64_t until_ns, Goal goal=Goal.NOTHING):
        """Serves the devices until a time; True if the goal was reached before.

        OSError: the ledger cannot be written.
        """
        cdef bint reached
        with nogil:
            reached = self._run(until_ns, goal)
        if self.ledger_errno:
            raise OSError(self.ledger_errno, os.strerror(self.ledger_errno))
        return reached

    def close(self):
        """Ends every session with DISCONNECT; the object is of no use afterwards."""
        cdef uint32_t i
        for i in range(self.count):
            if self.conns[i].state == READY:
                self._emit(&self.conns[i], b"\xe0\0", 2)
            if self.conns[i].fd >= 0 and self.conns[i].state != NEW:
                close(self.conns[i].fd)
                self.conns[i].fd = -1
            self.conns[i].state = GONE

    @property
    def refusal_codes(self):
        """CONNACK codes other than 0 and how often each came."""
        return {code: self.refusals[code] for code in range(256) if self.refusals[code]}

    # --- the loop ----------------------------------------------------------------------------

    cdef bint _run(self, int64_t until_ns, Goal goal) noexcept nogil:
        cdef int64_t now, next_ns
        cdef int i, n, timeout_ms
        while True:
            now = now_ns()
            self._make_connections(now)
            if self.flow == OPEN:
                self._send_due(now)
            self._write_ledger()
            if goal == CONNECTED and self.pending + self.waiting == 0 \
                    and self.next_new == self.count:
                return True
            if goal == QUIET and self.in_flight == 0 \
                    and (self.flow != OPEN or self.due == self.begun):
                return True
            if now >= until_ns or self.ledger_errno:
                return False
            next_ns = until_ns
            if self.waiting and self.retry_scan_ns < next_ns:
                next_ns = self.retry_scan_ns
            timeout_ms = <int>min((next_ns - now) // 1000000 + 1, 100)
            if self.flow == OPEN:
                if self._due_ns(self.due // self.burst) < self.until_ns:
                    next_ns = min(next_ns, self._due_ns(self.due // self.burst))
                timeout_ms = 0
                now = now_ns()
                if now < next_ns:
                    wait_ns(self.epfd, next_ns - now)
            n = epoll_wait(self.epfd, self.events, EVENTS, timeout_ms)
            for i in range(n):
                self._serve(&self.conns[self.events[i].data.u64], self.events[i].events)

    cdef void _serve(self, conn *c, uint32_t events) noexcept nogil:
        cdef int failure = 0
        cdef unsigned int n = sizeof(failure)
        if c.state not in (CONNECTING, GREETING, READY):
            return
        if c.state == CONNECTING:
            getsockopt(c.fd, SOL_SOCKET, SO_ERROR, &failure, &n)
            if failure or events & (EPOLLERR | EPOLLHUP):
                self.last_errno = failure
                self._drop(c)
                return
            self._greet(c)
            return
        if events & EPOLLOUT:
            self._drain(c)
            if c.state == READY:
                self._top_up(c, now_ns(), 0)
        if events & (EPOLLIN | EPOLLERR | EPOLLHUP) and c.state in (GREETING, READY):
            self._receive(c)

    # --- connections -------------------------------------------------------------------------

    cdef void _make_connections(self, int64_t now) noexcept nogil:
        cdef uint32_t i
        while self.next_new < self.count and self.pending < CONNECT_BURST:
            self.next_new += 1
            self.pending += 1
            self._dial(&self.conns[self.next_new - 1], now)
        if self.waiting == 0 or now < self.retry_scan_ns:
            return
        self.retry_scan_ns = now + RETRY_SCAN_NS
        for i in range(self.count):
            if (self.conns[i].state == WAITING and self.conns[i].since_ns <= now
                    and self.pending < CONNECT_BURST):
                self.waiting -= 1
                self.pending += 1
                self.reconnects += 1
                self._dial(&self.conns[i], now)

    cdef void _dial(self, conn *c, int64_t now) noexcept nogil:
        cdef int one = 1
        cdef epoll_event event
        cdef const char *source = self.source_p
        c.state = CONNECTING
        c.since_ns = now
        c.in_len = 0
        c.out_off = c.out_n = 0
        c.fd = socket(self.address_p.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if c.fd < 0:
            self.last_errno = errno
            self._drop(c)
            return
        setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        if self.source_count:
            # The port is chosen at connect: more than one server can share it.
            setsockopt(c.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one))
            source += (c - self.conns) % self.source_count * self.source_n
            if bind(c.fd, <const sockaddr *>source, self.source_n) < 0:
                self.last_errno = errno
                self._drop(c)
                return
        if connect(c.fd, self.address_p, self.address_n) < 0 and errno != EINPROGRESS:
            self.last_errno = errno
            self._drop(c)
            return
        event.events = EPOLLIN | EPOLLOUT
        event.data.u64 = <uint64_t>(c - self.conns)
        c.out_on = True
        if epoll_ctl(self.epfd, EPOLL_CTL_ADD, c.fd, &event) < 0:
            self.last_errno = errno
            self._drop(c)

    cdef void _greet(self, conn *c) noexcept nogil:
        c.state = GREETING
        if self._emit(c, c.connect, c.connect_n):
            self._want_out(c, c.out_n > 0)

    cdef void _drop(self, conn *c) noexcept nogil:
        """The connection is over, or could not be made."""
        if c.fd >= 0:
            close(c.fd)
            c.fd = -1
        if c.state == READY:
            self.ready -= 1
            self.lost += 1
        else:
            self.pending -= 1
            self.connect_failed += 1
        if self.reconnect:
            c.state = WAITING
            c.since_ns = now_ns() + RETRY_NS
            if self.waiting == 0:
                self.retry_scan_ns = c.since_ns
            self.waiting += 1
            return
        c.state = GONE
        self.in_flight -= c.w.in_flight
        self.abandoned += c.w.in_flight

    cdef void _accepted(self, conn *c, const tbf_connack *connack) noexcept nogil:
        """CONNACK: ready, or refused."""
        cdef tbf_span props = connack.props
        cdef tbf_property property
        cdef int64_t now = now_ns()
        cdef uint16_t i
        cdef size_t n = 0
        if connack.reason:
            self.refusals[connack.reason] += 1
            self._drop(c)
            return
        while tbf_mqtt_next_property(&props, &property) == TBF_OK:
            if property.id == RECEIVE_MAXIMUM and property.number < c.w.capacity:
                c.w.limit = <uint16_t>property.number
        c.state = READY
        self.pending -= 1
        self.ready += 1
        tbf_hist_record(&self.connect_time.h, <uint64_t>(now - c.since_ns))
        # What was not acknowledged on the connection before, with its own time, as devices do.
        for i in range(c.w.capacity if c.w.in_flight else 0):
            if c.w.slots[i].wait != TBF_LOAD_FREE:
                c.w.slots[i].wait = self._first_wait() if not c.w.slots[i].marker \
                    else TBF_LOAD_PUBACK
                n += self._stamp(c, &c.w.slots[i], n)
        self._top_up(c, now, n)

    # --- sending -----------------------------------------------------------------------------

    cdef inline tbf_load_wait _first_wait(self) noexcept nogil:
        return TBF_LOAD_PUBACK if self.qos == 1 else TBF_LOAD_PUBREC

    cdef inline int64_t _due_ns(self, uint64_t burst) noexcept nogil:
        return self.open_ns + <int64_t>(<double>burst * self.interval_ns)

    cdef void _send_due(self, int64_t now) noexcept nogil:
        """Burst b of the open loop belongs to device b modulo their number."""
        cdef uint64_t next_burst = self.due // self.burst
        cdef int64_t due_ns = self._due_ns(next_burst)
        while due_ns <= now and due_ns < self.until_ns:
            if due_ns >= self.from_ns:
                tbf_hist_record(&self.lag.h, <uint64_t>(now - due_ns))
            self._top_up(&self.conns[next_burst % self.count], now, 0)
            self.due += self.burst
            next_burst += 1
            due_ns = self._due_ns(next_burst)

    cdef inline size_t _stamp(self, conn *c, tbf_load_slot *s, size_t at) noexcept nogil:
        return tbf_load_stamp(self.scratch + at,
                              &self.marker.t if s.marker else &self.publish.t,
                              tbf_load_id(&c.w, s), self.first_ts_ms + s.seq, s.seq)

    cdef inline size_t _put(self, conn *c, tbf_load_slot *s, int64_t intended_ns,
                            size_t at) noexcept nogil:
        s.intended_ns = intended_ns
        s.seq = c.seq
        c.seq += 1
        return self._stamp(c, s, at)

    cdef size_t _begin(self, conn *c, int64_t intended_ns, size_t at) noexcept nogil:
        """Writes one message into scratch; 0 if the window is full."""
        cdef tbf_load_slot *s
        if self.qos == 0:
            c.seq += 1
            self.sent += 1
            return tbf_load_stamp(self.scratch + at, &self.publish.t, 0,
                                  self.first_ts_ms + c.seq - 1, c.seq - 1)
        s = tbf_load_begin(&c.w, self._first_wait())
        if not s:
            return 0
        self.sent += 1
        self.in_flight += 1
        return self._put(c, s, intended_ns, at)

    cdef size_t _round(self, conn *c, int64_t now, size_t n) noexcept nogil:
        """Closed loop: the next round, if the last one is acknowledged."""
        cdef uint16_t _i
        cdef size_t added
        if self.qos and c.w.in_flight:
            return n
        for _i in range(c.w.capacity):
            added = self._begin(c, now, n)
            if added == 0:
                break
            n += added
        return n

    cdef size_t _overdue(self, conn *c, int64_t now, size_t n) noexcept nogil:
        """Open loop: everything that is due, as far as the window allows."""
        cdef uint64_t index = <uint64_t>(c - self.conns)
        cdef int64_t intended
        cdef size_t added
        while n + self.publish.t.n <= self.burst_bytes:
            intended = self._due_ns(c.scheduled // self.burst * self.count + index)
            if intended > now or intended >= self.until_ns:
                break
            added = self._begin(c, intended, n)
            if added == 0:
                break
            n += added
            c.scheduled += 1
            self.begun += 1
        return n

    cdef void _top_up(self, conn *c, int64_t now, size_t n) noexcept nogil:
        """Sends n bytes of scratch and every message the device may and should send now."""
        if c.state != READY:
            return
        if c.out_n == 0:
            if self.flow == CLOSED:
                n = self._round(c, now, n)
            elif self.flow == OPEN:
                n = self._overdue(c, now, n)
        if n and self._emit(c, self.scratch, n):
            # QoS 0 in the closed loop: the socket itself says when there is room for more.
            self._want_out(c, c.out_n > 0 or (self.flow == CLOSED and self.qos == 0))

    cdef bint _emit(self, conn *c, const uint8_t *data, size_t n) noexcept nogil:
        """Sends, keeping what the kernel does not take; False if the connection is lost."""
        cdef ssize_t done = 0
        cdef uint8_t *grown
        cdef size_t rest
        if c.out_n == 0:
            done = send(c.fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL)
            if done < 0:
                if errno != EAGAIN and errno != EINTR:
                    self.last_errno = errno
                    self._drop(c)
                    return False
                done = 0
        rest = n - <size_t>done
        if rest == 0:
            return True
        if c.out_off:
            memmove(c.out, c.out + c.out_off, c.out_n)
            c.out_off = 0
        if c.out_cap - c.out_n < rest:
            grown = <uint8_t *>realloc(c.out, c.out_n + rest)
            if not grown:
                self._drop(c)
                return False
            c.out = grown
            c.out_cap = c.out_n + rest
        memcpy(c.out + c.out_n, data + done, rest)
        c.out_n += rest
        self._want_out(c, True)
        return True

    cdef void _drain(self, conn *c) noexcept nogil:
        cdef ssize_t done
        if c.out_n:
            done = send(c.fd, c.out + c.out_off, c.out_n, MSG_DONTWAIT | MSG_NOSIGNAL)
            if done < 0:
                if errno != EAGAIN and errno != EINTR:
                    self.last_errno = errno
                    self._drop(c)
                return
            c.out_off += <size_t>done
            c.out_n -= <size_t>done
        if c.out_n == 0:
            c.out_off = 0
            if not (self.flow == CLOSED and self.qos == 0):
                self._want_out(c, False)

    cdef inline void _want_out(self, conn *c, bint on) noexcept nogil:
        cdef epoll_event event
        if c.fd < 0 or c.out_on == on:
            return
        c.out_on = on
        event.events = EPOLLIN | EPOLLOUT if on else EPOLLIN
        event.data.u64 = <uint64_t>(c - self.conns)
        epoll_ctl(self.epfd, EPOLL_CTL_MOD, c.fd, &event)

    # --- receiving ---------------------------------------------------------------------------

    cdef void _receive(self, conn *c) noexcept nogil:
        cdef ssize_t got
        cdef size_t n, at = 0, reply = 0
        cdef tbf_frame frame
        cdef tbf_status status
        cdef int64_t now
        got = recv(c.fd, self.rbuf + c.in_len, READ_BYTES, MSG_DONTWAIT)
        if got < 0 and (errno == EAGAIN or errno == EINTR):
            return
        if got <= 0:
            self.last_errno = errno if got < 0 else 0
            self._drop(c)
            return
        memcpy(self.rbuf, c.inp, c.in_len)
        n = <size_t>got + c.in_len
        c.in_len = 0
        now = now_ns()
        while at < n:
            status = tbf_mqtt_frame(self.rbuf + at, n - at, READ_BYTES, &frame)
            if status != TBF_OK:
                break
            if not self._packet(c, &frame, now, &reply):
                return
            at += frame.total
        if at < n:
            if status != TBF_MORE or n - at > STASH_BYTES:
                self.broken += 1
                self._drop(c)
                return
            memcpy(c.inp, self.rbuf + at, n - at)
            c.in_len = <uint16_t>(n - at)
        self._top_up(c, now, reply)

    cdef bint _packet(self, conn *c, const tbf_frame *frame, int64_t now,
                      size_t *reply) noexcept nogil:
        """Acts on one packet; PUBRELs gather in scratch.  False if the connection ended."""
        cdef tbf_connack connack
        cdef tbf_ack ack
        cdef tbf_load_slot *s = NULL
        cdef tbf_load_answer answer
        if c.state == GREETING:
            if (frame.type != TBF_MQTT_CONNACK
                    or tbf_mqtt_connack(frame, self.version, &connack) != TBF_OK):
                self.broken += 1
                self._drop(c)
                return False
            self._accepted(c, &connack)
            return c.state == READY
        if frame.type == TBF_MQTT_DISCONNECT:
            self.last_disconnect = frame.body.p[0] if frame.body.n else 0
            return True
        if frame.type not in (TBF_MQTT_PUBACK, TBF_MQTT_PUBREC, TBF_MQTT_PUBCOMP):
            return True  # a message or an answer that no test asks for
        if tbf_mqtt_ack(frame, self.version, &ack) != TBF_OK:
            self.broken += 1
            self._drop(c)
            return False
        answer = tbf_load_answered(&c.w, frame.type, ack.packet_id, ack.reason, &s)
        if answer == TBF_LOAD_STRAY:
            self.stray += 1
        elif answer == TBF_LOAD_RELEASE:
            reply[0] += tbf_mqtt_put_ack(self.scratch + reply[0], TBF_MQTT_PUBREL, ack.packet_id)
        else:
            self.in_flight -= 1
            if answer == TBF_LOAD_REFUSED:
                self.refused += 1
            elif not s.marker:
                self.acked += 1
                if self.from_ns <= s.intended_ns < self.until_ns:
                    tbf_hist_record(&self.latency.h, <uint64_t>(now - s.intended_ns))
                if self.ledger_fd >= 0:
                    self._note(c, s)
        return True

    # --- ledger ------------------------------------------------------------------------------

    cdef void _note(self, conn *c, const tbf_load_slot *s) noexcept nogil:
        cdef uint8_t *p
        if LEDGER_BYTES - self.lines_n < LEDGER_LINE_BYTES:
            self._write_ledger()
        p = self.lines + self.lines_n
        memcpy(p, c.prefix, c.prefix_n)
        p += c.prefix_n
        p += tbf_out_int64(p, <int64_t>(self.first_ts_ms + s.seq))
        memcpy(p, b',"seq":', 7)
        p += 7
        p += tbf_out_int64(p, <int64_t>s.seq)
        memcpy(p, b'}\n', 2)
        self.lines_n = <size_t>(p + 2 - self.lines)

    cdef void _write_ledger(self) noexcept nogil:
        cdef size_t at = 0
        cdef ssize_t done
        while at < self.lines_n and not self.ledger_errno:
            done = write(self.ledger_fd, self.lines + at, self.lines_n - at)
            if done >= 0:
                at += <size_t>done
            elif errno != EINTR:
                self.ledger_errno = errno
        self.lines_n = 0
