"""Connections of one worker: their descriptors, what epoll watches of them, and their output.

Strangers, who have no session yet, share an epoll of their own, so that whoever serves the
connections can serve them last (see reactor.pyx).  Nothing here knows what the bytes mean.
"""

from libc.errno cimport EAGAIN, EEXIST, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, memset

import ipaddress

from tbfast import limits

from tbfast._ext.ingest cimport Ingest
from tbfast._ext.metrics cimport SENT_BYTES_MQTT, Slot
from tbfast._ext.tls cimport TlsStream
from tbfast._ext.posix cimport (
    AF_INET,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
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
    GATHER_BYTES = 16384    # answers to one read of TLS that share a record
    ACCEPTS = 128           # connections accepted per turn
    TRIM_BYTES = 8388608    # freed by closed connections: given back to the system

cdef bytes V4_MAPPED = bytes(10) + b"\xff\xff"
cdef uint32_t OUTBOUND_BYTES = limits.OUTBOUND_BYTES
cdef uint32_t OUTBOUND_PAUSE_BYTES = limits.OUTBOUND_PAUSE_BYTES
cdef int64_t WRITE_TIMEOUT_MS = limits.WRITE_TIMEOUT_MS
cdef int TCP_TIMEOUT_MS = limits.TCP_TIMEOUT_MS
cdef int64_t STRANGER_GRACE_NS = limits.STRANGER_GRACE_MS * 1000000

cdef inline void unsent_to_front(conn *c) noexcept nogil:
    """Moves unsent output to the front of its buffer."""
    memmove(c.out, c.out + c.out_off, c.out_len)
    c.out_off = 0


cdef class Connections:
    """Sockets by slot, from accept to the last byte sent.

    The base of `Reactor`, which names the handler's methods and serves what epoll reports.
    """

    def __cinit__(self, Ingest ingest, handler, Slot metrics, *_,
                  size_t linger_ms=limits.MQTT_CLOSE_TIMEOUT_MS,
                  uint32_t max_connections=1 << 20, **__):
        cdef epoll_event ev
        self.ingest = ingest
        self.handler = handler
        self.metrics = metrics
        self.linger_ms = linger_ms
        self.max_connections = max_connections
        self.listen_fds[0] = self.listen_fds[1] = -1
        self.streams = {}
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

    def __dealloc__(self):
        cdef uint32_t slot
        for slot in range(self.capacity):
            if self.conns[slot].state != FREE:
                close(self.conns[slot].fd)
                free(self.conns[slot].inp)
                free(self.conns[slot].out)
        free(self.conns)
        if self.epfd >= 0:
            close(self.epfd)
        if self.lobby >= 0:
            close(self.lobby)

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

    # --- who is there ------------------------------------------------------------------------

    cdef bint _is(self, uint32_t slot, uint32_t generation) noexcept:
        return (slot < self.capacity and self.conns[slot].state != FREE
                and self.conns[slot].generation == generation)

    cdef int _fault(self, uint32_t slot, uint32_t generation, error) except -1:
        """Our own fault while serving a connection: where its input continues is not known any
        more, so it ends; the others are served on."""
        self.handler.fault(slot, error)
        if self._is(slot, generation):
            self._lost(slot, "aborted")
        return 0

    @property
    def held(self):
        """Connections whose input waits until the store has caught up."""
        return len(self.held_slots)

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

    # --- input that waits --------------------------------------------------------------------

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

    # --- output ------------------------------------------------------------------------------

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

    def drop_unread(self):
        """Closes connections that have left answers unread; returns how many."""
        cdef uint32_t slot, dropped = 0
        for slot in range(self.capacity):
            if self.conns[slot].state == OPEN and self.conns[slot].out_len:
                self._lost(slot, "slow_consumer")
                dropped += 1
        return dropped

    def close_all(self):
        """Closes every connection at once (the end of a stop)."""
        cdef uint32_t slot
        for slot in range(self.capacity):
            if self.conns[slot].state != FREE:
                self._lost(slot, "stopped")

    # --- time --------------------------------------------------------------------------------

    def set_deadline(self, uint32_t slot, int64_t mono_ms):
        """When to call `timed_out`; 0 = never.  Checked by `sweep`."""
        if slot < self.capacity and self.conns[slot].state == OPEN:
            self.conns[slot].deadline_ms = mono_ms

    cdef int _sweep(self) except -1:
        """Finds expired deadlines and stuck writers."""
        cdef uint32_t slot
        cdef conn *c
        if self.freed_bytes >= TRIM_BYTES:
            # The heap keeps pages between what lives on: an attack would weigh on us for ever.
            self.freed_bytes = 0
            with nogil:
                give_back_free_pages()
        if self.accept_paused and (self.strangers or self.connections < self.max_connections):
            self.accept_paused = False
            self._watch_listeners(True)
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
        return 0
