"""Rows and acknowledgement tokens of one worker: the open batch, commit groups, session slots.

No sockets and no clock here: time comes in, bytes come in, groups go out.  A group becomes a
journal block (`take`); whoever commits it hands it back to the adapter that sends the answers.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

from tbfast import limits
from tbfast._ext.batch cimport (
    TBF_OK,
    tbf_batch_clear,
    tbf_batch_mark,
    tbf_batch_rollback,
    tbf_mark,
)
from tbfast._ext.proto cimport Table, append_proto
from tbfast._ext.rate cimport (
    TBF_RATE_DEVICE,
    TBF_RATE_GATEWAY_DEVICE,
    Rates,
    tbf_rate_message,
    tbf_rate_scope,
)
from tbfast._ext.tbjson cimport append_json, tbf_json_result
from tbfast.errors import PeerError, RateLimited

cdef enum:
    CLOCK_SLACK_MS = 5000  # a clock stepping back by less is bridged (promises: clock jumps)

cdef class Group:
    """One commit group: answers owed for its messages, and its block once it is framed."""

    def __cinit__(self):
        self.g.ack_cap = 1024
        self.g.touched_cap = 256
        self.g.acks = <tbf_owed *>malloc(self.g.ack_cap * sizeof(tbf_owed))
        self.g.touched = <tbf_touched *>malloc(self.g.touched_cap * sizeof(tbf_touched))
        if self.g.acks == NULL or self.g.touched == NULL:
            raise MemoryError("no memory for a commit group")
        self.waiters = []

    def __dealloc__(self):
        free(self.g.acks)
        free(self.g.touched)

    cdef int grow(self) except -1:
        cdef void *more
        if self.g.ack_count == self.g.ack_cap:
            more = realloc(self.g.acks, 2 * self.g.ack_cap * sizeof(tbf_owed))
            if more == NULL:
                raise MemoryError("no memory for a commit group")
            self.g.acks = <tbf_owed *>more
            self.g.ack_cap *= 2
        if self.g.touched_count == self.g.touched_cap:
            more = realloc(self.g.touched, 2 * self.g.touched_cap * sizeof(tbf_touched))
            if more == NULL:
                raise MemoryError("no memory for a commit group")
            self.g.touched = <tbf_touched *>more
            self.g.touched_cap *= 2
        return 0

    @property
    def messages(self):
        """Messages in the group, acknowledged or not."""
        return self.g.messages

    @property
    def owed(self):
        """Messages of the group that wait for an answer."""
        return self.g.ack_count

    @property
    def bad_utf8(self):
        """Sequences in payloads that were replaced by U+FFFD."""
        return self.g.bad_utf8

    @property
    def empty(self):
        """Whether no message came into the group at all."""
        return self.g.messages == 0

    def answers(self):
        """[(slot, generation, [(packet type, packet identifier), ...]), ...]."""
        cdef uint32_t i, index
        out = []
        for i in range(self.g.touched_count):
            owed = []
            index = self.g.touched[i].first
            while index:
                owed.append((self.g.acks[index - 1].type, self.g.acks[index - 1].packet_id))
                index = self.g.acks[index - 1].next
            out.append((self.g.touched[i].slot, self.g.touched[i].generation, owed))
        return out


cdef class Ingest:
    """Turns payloads into rows of the open batch and notes who waits for the commit.

    rows_limit: bytes of rows that close a group.  seed: of the key table's hash, 16 bytes, random
    unless given.  rates: limits that messages are held to; None = none.  The other arguments are
    the JSON bounds of hostile-input section 2 and ThingsBoard's JSON settings.
    """

    def __cinit__(self, *, size_t max_remaining=limits.MQTT_MAX_REMAINING_BYTES,
                  size_t rows_limit=limits.BATCH_GROUP_BYTES, bint type_cast=True,
                  uint32_t max_string=0, uint32_t max_depth=limits.JSON_MAX_DEPTH,
                  uint32_t max_keys=limits.JSON_MAX_KEYS,
                  uint32_t keys_per_epoch=limits.KEYS_PER_EPOCH, seed=None,
                  Rates rates=None):
        self.batch = Batch(keys_per_epoch, seed=seed)
        self._spare = []
        self._profiles = {}
        self._quiet = {}  # as many as there are devices, at most
        self.capacity = 64
        self.sessions = <tbf_session *>calloc(self.capacity, sizeof(tbf_session))
        if self.sessions == NULL:
            raise MemoryError("no memory for sessions")
        self.json.max_depth = max_depth
        self.json.max_keys = max_keys
        self.json.max_string = max_string
        self.json.type_cast = type_cast
        self.json.max_plain = limits.JSON_MAX_PLAIN_DIGITS
        self.context.batch = &self.batch.b
        self.context.json = &self.json
        self.context.max_remaining = max_remaining
        self.context.rows_limit = rows_limit
        self.rates = rates
        self.context.rates = NULL
        self.context.refusal = NULL if rates is None else &rates.refusal
        self._serial = 0
        self.group = None
        self._open_group(Group())

    def __dealloc__(self):
        free(self.sessions)

    def _open_group(self, Group group not None):
        self._serial += 1
        group.g.serial = self._serial
        group.g.ack_count = group.g.touched_count = 0
        group.g.messages = group.g.bad_utf8 = 0
        group.opened_ns = 0
        group.value = None
        self.group = group
        self.context.group = &group.g

    cdef int set_time(self, int64_t wall_ms, int64_t mono_ns) except -1:
        # Server time never runs backwards within a small step; a larger one is a new truth.
        cdef int64_t step_ms
        if wall_ms < self.context.wall_ms <= wall_ms + CLOCK_SLACK_MS:
            wall_ms = self.context.wall_ms
        elif self.context.wall_ms:
            step_ms = wall_ms - self.context.wall_ms - (mono_ns // 1000000 - self.context.mono_ms)
            if step_ms > CLOCK_SLACK_MS or step_ms < -CLOCK_SLACK_MS:
                self.clock_steps += 1
                self.clock_step_ms = step_ms
        if self.group.g.messages == 0:
            self.group.opened_ns = mono_ns
            tbf_batch_clear(&self.batch.b, wall_ms)
        self.context.wall_ms = wall_ms
        self.context.mono_ms = mono_ns // 1000000
        self.context.mono_ns = mono_ns
        self.look_at_rates()
        self.context.read_us = <uint32_t>((mono_ns - self.group.opened_ns) // 1000)
        return 0

    cdef int grow(self) except -1:
        """More room for the group's arrays if they are full, else for rows."""
        if (self.group.g.ack_count == self.group.g.ack_cap
                or self.group.g.touched_count == self.group.g.touched_cap):
            self.group.grow()
        else:
            self.batch.grow()
        return 0

    cdef int ensure_slot(self, uint32_t slot) except -1:
        cdef uint32_t capacity = self.capacity
        cdef tbf_session *more
        while slot >= capacity:
            capacity *= 2
        if capacity != self.capacity:
            more = <tbf_session *>realloc(self.sessions, capacity * sizeof(tbf_session))
            if more == NULL:
                raise MemoryError("no memory for sessions")
            memset(more + self.capacity, 0, (capacity - self.capacity) * sizeof(tbf_session))
            self.sessions = more
            self.capacity = capacity
        return 0

    def at(self, int64_t wall_ms, int64_t mono_ns):
        """Sets the time of the messages that follow: server time and monotonic read time."""
        self.set_time(wall_ms, mono_ns)

    def open(self, uint32_t slot, uint64_t device, uint8_t version, bint hot=True,
             uint8_t scope=TBF_RATE_DEVICE):
        """Binds a slot to an accepted session; returns its generation.

        scope: whose rate limits its messages count for.
        """
        cdef tbf_session *s
        self.ensure_slot(slot)
        s = &self.sessions[slot]
        s.generation += 1
        s.device = device
        s.version = version
        s.hot = hot
        s.scope = scope
        s.takes_v2 = True
        s.quiet = False
        s.topic = NULL
        s.proto = NULL
        self._profiles.pop(slot, None)
        s.awaiting = 0
        s.group = 0
        s.active_ms = self.context.mono_ms
        return s.generation

    def close(self, uint32_t slot):
        """Ends the session of a slot: answers it waits for are dropped, its rows are not."""
        if slot < self.capacity:
            self.sessions[slot].generation += 1
            self.sessions[slot].hot = False
            self.sessions[slot].topic = NULL
            self.sessions[slot].proto = NULL
            self.sessions[slot].awaiting = 0
            self._profiles.pop(slot, None)

    def profile(self, uint32_t slot, bytes topic, bint takes_v2, Table table):
        """What the open session's telemetry looks like: exact topic and payload format.

        topic: None = the default one, b"" = none; takes_v2: v2/t is telemetry; table: None = JSON.
        """
        cdef tbf_session *s = &self.sessions[slot]
        if slot >= self.capacity:
            raise IndexError(slot)
        self._profiles[slot] = (topic, table)
        s.topic = NULL
        s.topic_n = 0
        if topic is not None:
            s.topic = <const uint8_t *><const char *>topic
            s.topic_n = <uint32_t>len(topic)
        s.takes_v2 = takes_v2
        s.proto = NULL
        if table is not None:
            s.proto = &table.t

    def generation(self, uint32_t slot):
        """Current generation of a slot."""
        return self.sessions[slot].generation

    def cool(self, uint32_t slot):
        """Takes the session off the hot path; answers it waits for still go out."""
        if slot < self.capacity:
            self.sessions[slot].hot = False

    @property
    def wall_ms(self):
        """Server time given to records without their own."""
        return self.context.wall_ms

    def awaiting(self, uint32_t slot):
        """Messages of the slot's session that wait for a commit."""
        return self.sessions[slot].awaiting if slot < self.capacity else 0

    def active_ms(self, uint32_t slot):
        """Monotonic time of the last message accepted on the hot path."""
        return self.sessions[slot].active_ms if slot < self.capacity else 0

    cdef int note_quiet(self, uint64_t device) except -1:
        self._quiet[device] = self.context.mono_ms
        return 0

    def quiet(self, uint64_t device):
        """A message of the device was accepted that has no rows to tell of it."""
        self.note_quiet(device)

    def take_quiet(self):
        """(device, monotonic ms of the last such message) since the last call; one per device."""
        taken, self._quiet = self._quiet, {}
        return list(taken.items())

    def walk(self, uint32_t slot, data):
        """Takes the run of plain PUBLISHes in front: (bytes used, whether the group is full).

        RateLimited: the one after the run is over a limit; how long the run was is lost with it.
        """
        cdef Py_buffer view
        cdef size_t used = 0, total = 0
        cdef tbf_walk_end end = TBF_WALK_GROW
        if slot >= self.capacity or not self.sessions[slot].hot:
            return 0, False
        self.look_at_rates()
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            while end == TBF_WALK_GROW:
                with nogil:
                    end = tbf_walk(&self.context, &self.sessions[slot], slot,
                                   <const uint8_t *>view.buf + total,
                                   <size_t>view.len - total, &used)
                total += used
                self.look_at_session(slot)
                if end == TBF_WALK_GROW:
                    self.grow()
        finally:
            PyBuffer_Release(&view)
        if end == TBF_WALK_LIMITED:
            raise self.rates.refused()
        return total, end == TBF_WALK_GROUP_FULL

    def spend(self, uint64_t device, uint8_t scope=TBF_RATE_DEVICE):
        """Accounts a message without values, now; RateLimited when it is over a limit."""
        self.account(scope, device, 0)

    cdef int account(self, uint8_t scope, uint64_t device, uint32_t points) except -1:
        self.look_at_rates()
        if self.context.rates == NULL:
            return 0
        if scope > TBF_RATE_GATEWAY_DEVICE:
            raise ValueError("no such scope")
        if not tbf_rate_message(self.context.rates, <tbf_rate_scope>scope, device, points,
                                self.context.mono_ns, self.context.refusal):
            raise self.rates.refused()
        return 0

    def limited(self):
        """The RateLimited of the message that was refused last."""
        return self.rates.refused()

    def append_json(self, uint64_t device, data, uint8_t scope=TBF_RATE_DEVICE):
        """Rows of one telemetry payload; returns (records, points).

        PeerError (0x99) when it is refused, RateLimited when it is over a limit of its scope:
        nothing of it is in the batch then.
        """
        return self._append(device, data, None, False, scope)

    def append_exact(self, uint64_t device, data):
        """As append_json, but strings stay strings whatever the setting says."""
        cdef bint type_cast = self.json.type_cast
        self.json.type_cast = False
        try:
            return self._append(device, data, None, False, TBF_RATE_DEVICE)
        finally:
            self.json.type_cast = type_cast

    def append_attributes(self, uint64_t device, data, uint8_t scope=TBF_RATE_DEVICE):
        """One record of client attributes (MQTT spec 4.1); otherwise as append_json."""
        return self._append(device, data, None, True, scope)

    def append_proto(self, uint64_t device, data, Table table not None, bint attributes,
                     uint8_t scope=TBF_RATE_DEVICE):
        """The same for a Protobuf payload by its schema (MQTT spec 7.3)."""
        return self._append(device, data, table, attributes, scope)

    cdef tuple _append(self, uint64_t device, object data, Table table, bint attributes,
                       uint8_t scope):
        cdef tbf_mark mark = tbf_batch_mark(&self.batch.b)
        cdef Py_buffer view
        cdef tbf_json_result result
        cdef tbf_status status
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if table is None:
                status = append_json(self.batch, device, self.context.wall_ms,
                                     <const uint8_t *>view.buf, <size_t>view.len, attributes,
                                     &self.json, &result)
            else:
                status = append_proto(self.batch, table, device, self.context.wall_ms,
                                      <const uint8_t *>view.buf, <size_t>view.len, attributes,
                                      &self.json, &result)
        finally:
            PyBuffer_Release(&view)
        if status != TBF_OK:
            raise PeerError(result.error.decode("ascii"), code=0x99)
        try:
            self.account(scope, device, result.points)
        except RateLimited:
            tbf_batch_rollback(&self.batch.b, &mark)
            raise
        self.group.g.bad_utf8 += result.bad_utf8
        return result.records, result.points

    def note(self, uint32_t slot, uint8_t ack_type, uint16_t packet_id):
        """The session owes `ack_type` for packet_id once the open group is durable (0: nothing)."""
        self.ensure_slot(slot)
        while tbf_group_note(&self.group.g, &self.sessions[slot], slot, ack_type, packet_id,
                             self.context.read_us) != TBF_OK:
            self.group.grow()
        self.sessions[slot].active_ms = self.context.mono_ms

    def wait(self, waiter):
        """A message of a protocol without sessions: `waiter` goes with the open group."""
        self.group.g.messages += 1
        self.group.waiters.append(waiter)

    def take(self, uint32_t journal_id, uint32_t epoch, uint64_t seq, int64_t commit_ms,
             uint32_t first_key):
        """Closes the open group and frames its rows; a new one is open afterwards.

        first_key: lowest key number whose definition is not durable yet.  `value` of the result is
        the block, or None when the group holds messages but no rows.  MemoryError: the group is
        open as it was.
        """
        cdef Group group = self.group
        # First: rows must not go while their answers stay owed by the open group.
        cdef Group following = self._spare.pop() if self._spare else Group()
        group.seq = seq
        group.last_key = self.batch.k.count
        group.points = self.batch.b.point_count
        group.dropped_records = self.batch.b.dropped_records
        group.held_bytes = self.batch.b.len + group.g.ack_count * sizeof(tbf_owed)
        if self.batch.b.record_count:
            group.value = self.batch.to_block(journal_id, epoch, seq, commit_ms, first_key)
        tbf_batch_clear(&self.batch.b, self.context.wall_ms)
        self._open_group(following)
        return group

    def settle(self, Group group):
        """The group has ended: what it owes to sessions that are still there.

        [(slot, [(packet type, packet identifier), ...]), ...]; they wait for it no more.
        """
        out = []
        for slot, generation, owed in group.answers():
            if owed and self.sessions[<uint32_t>slot].generation == generation:
                self.sessions[<uint32_t>slot].awaiting -= <uint32_t>len(owed)
                out.append((slot, owed))
        return out

    def recycle(self, Group group):
        """Gives back a group whose answers have been sent."""
        group.value = None
        group.waiters.clear()
        if len(self._spare) < 8 and group.g.ack_cap <= 65536:
            self._spare.append(group)

    @property
    def rows_bytes(self):
        """Bytes of rows in the open group."""
        return self.batch.b.len
