"""TCP adapter for MQTT: a private epoll bridged into the event loop by one `add_reader`.

Strangers, who have no session yet, share an epoll of their own and are served after everybody else,
so many a turn: however many come, who is in hardly notices.

Why not transports: with one message per read, a loop transport costs a fifth of the CPU and 1.4 KB
an idle connection; here a turn of the loop is one Python call however many sockets are ready, and
a connection that the store cannot keep up with is simply not read.  In front of it stands a `Gate`.

A connection may have to bring a PROXY protocol header and a TLS handshake before its first packet
(`conn_stage`); from then on the same code serves all of them.

Who owns what: its `Connections` own descriptors, partial frames and unsent output; `Ingest` owns
rows and answers owed; the handler (tbfast.net.mqtt) owns the session engines and decides everything
that is not a plain telemetry PUBLISH.  All calls happen on the loop's thread.
"""

cimport cython
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from collections import deque

from tbfast import limits

from tbfast._ext.batch cimport TBF_MORE, TBF_OK, tbf_status
from tbfast._ext.connections cimport (
    DRAINING,
    HELLO,
    LOBBY,
    NOBODY,
    OPEN,
    PLAIN,
    PROXY,
    SEALED,
    SHAKING,
    TLS_LISTENER,
    Connections,
    conn,
)
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
from tbfast._ext.metrics cimport RECEIVED_BYTES_MQTT, Slot
from tbfast._ext.mqtt cimport tbf_frame, tbf_mqtt_frame, tbf_mqtt_put_ack
from tbfast._ext.proxy cimport tbf_proxy, tbf_proxy_read
from tbfast._ext.tls cimport TLS_FAILED, TLS_MORE, TlsStream, tls_end
from tbfast._ext.posix cimport (
    CLOCK_MONOTONIC,
    CLOCK_REALTIME,
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    MSG_DONTWAIT,
    epoll_event,
    epoll_wait,
    now_ns,
    recv,
)

cdef enum:
    READ_BYTES = 262144        # one read of a socket
    SEALED_READ_BYTES = 16384  # the same of TLS, whose answers cost more
    SHAKE_NS = 10000000        # spent on TLS handshakes in one turn of the loop
    HANDSHAKE_RECORD = 0x16    # first byte of whatever starts TLS
    PRESSED_READ_BYTES = 4096  # the same while the store is behind
    EVENTS = 512               # sockets served per turn
    STRANGERS = 64             # of those without a session: a storm of them leaves room for others
    PACKETS = 1024             # of one connection that the engine acts on in one go
    SCRATCH_BYTES = 65536      # answers gathered for one send

cdef int64_t HANDSHAKE_WAIT_MS = limits.TLS_HANDSHAKE_WAIT_MS


@cython.final
cdef class Reactor(Connections):
    """Sockets of one worker's MQTT listeners.

    handler methods, called with the connection's slot: ``opened``, ``stranger_sent(slot, nbytes)``
    (no session is accepted there yet; see `accepted`), ``received(slot, view)`` with
    one complete packet (or the bytes that cannot be one; the view is valid during the call only),
    ``limited`` (a message is over a rate limit: the session must end), ``timed_out``, ``drained``
    (no answer is owed any more), ``refused`` (rows were not stored), ``ended(slot) -> bool`` (the
    peer sends nothing more; whether it stays until the handler finishes it),
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

    cdef Gate gate
    cdef object waiting     # (slot, generation, since when) of handshakes to begin, oldest first
    cdef object blocked     # the same that the handler had no room for
    cdef int64_t shake_ns   # spent on handshakes in this turn
    cdef readonly bint pressed
    cdef uint8_t *rbuf
    cdef uint8_t *scratch
    cdef epoll_event *events
    cdef size_t max_remaining
    cdef int ack_histogram
    cdef readonly int64_t wall_ms

    def __cinit__(self, Ingest ingest, handler, Slot metrics, int ack_histogram, *,
                  size_t max_remaining=limits.MQTT_MAX_REMAINING_BYTES,
                  linger_ms=None, max_connections=None):  # those are for Connections
        self.ack_histogram = ack_histogram
        self.max_remaining = max_remaining
        self.waiting = deque()
        self.blocked = deque()
        self.gate = Gate(self.epfd)
        # A partial frame (at most max_remaining and its header) stands before what is read next.
        self.rbuf = <uint8_t *>malloc(READ_BYTES + max_remaining + 8)
        self.scratch = <uint8_t *>malloc(SCRATCH_BYTES)
        self.events = <epoll_event *>malloc(EVENTS * sizeof(epoll_event))
        if self.rbuf == NULL or self.scratch == NULL or self.events == NULL:
            raise MemoryError("no memory for the reactor")
        self._tick()

    def __dealloc__(self):
        free(self.rbuf)
        free(self.scratch)
        free(self.events)

    def fileno(self):
        """Descriptor to watch for reading; call `ready` when it is."""
        return self.gate.fd

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
            return self._ended(slot)
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
                self.ingest.look_at_session(slot)
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

    # --- before the first packet -------------------------------------------------------------

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
            return self._ended(slot)
        return 0

    cdef int _ended(self, uint32_t slot) except -1:
        """The peer sends nothing more: it is gone, unless the handler has not acted on all yet."""
        cdef conn *c = &self.conns[slot]
        if c.state != OPEN or not self.handler.ended(slot):
            return self._lost(slot)
        c.held = True  # an error or a hang-up is heard of still
        return self._interest(slot)

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

    # --- time --------------------------------------------------------------------------------

    def sweep(self):
        """Finds expired deadlines and stuck writers; called a few times a second."""
        self._tick()
        self._sweep()
        if self.waiting or self.blocked:
            self.shake()
