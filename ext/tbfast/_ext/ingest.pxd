# Open batch, commit groups and session slots; shared by the reactor and the TLS adapter.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from tbfast._ext.batch cimport Batch, tbf_batch, tbf_status
from tbfast._ext.proto cimport Table, tbf_proto_table
from tbfast._ext.rate cimport Rates, tbf_rate_refusal, tbf_rate_view
from tbfast._ext.tbjson cimport tbf_json_opts

cdef extern from "tbf_walk.h" nogil:
    ctypedef struct tbf_owed:
        uint32_t next
        uint32_t read_us
        uint16_t packet_id
        uint8_t type
    ctypedef struct tbf_touched:
        uint32_t slot
        uint32_t generation
        uint32_t first
        uint32_t last
        uint32_t count
    const uint32_t TBF_GROUP_ACKS
    ctypedef struct tbf_group:
        uint64_t serial
        tbf_owed *acks
        uint32_t ack_count
        uint32_t ack_cap
        tbf_touched *touched
        uint32_t touched_count
        uint32_t touched_cap
        uint64_t messages
        uint64_t bad_utf8
    ctypedef struct tbf_session:
        uint64_t device
        uint64_t group
        uint32_t touched_at
        uint32_t generation
        uint32_t awaiting
        uint8_t version
        bint hot
        bint takes_v2
        bint quiet
        uint8_t scope
        const uint8_t *topic
        uint32_t topic_n
        const tbf_proto_table *proto
        int64_t active_ms
    ctypedef enum tbf_walk_end:
        TBF_WALK_DONE
        TBF_WALK_UNUSUAL
        TBF_WALK_GROW
        TBF_WALK_GROUP_FULL
        TBF_WALK_LIMITED
    ctypedef struct tbf_walk_context:
        tbf_batch *batch
        tbf_group *group
        const tbf_json_opts *json
        size_t max_remaining
        size_t rows_limit
        int64_t wall_ms
        int64_t mono_ms
        uint32_t read_us
        int64_t mono_ns
        const tbf_rate_view *rates
        tbf_rate_refusal *refusal
    tbf_status tbf_group_note(tbf_group *g, tbf_session *s, uint32_t slot, uint8_t ack_type,
                              uint16_t packet_id, uint32_t read_us)
    tbf_walk_end tbf_walk(const tbf_walk_context *c, tbf_session *s, uint32_t slot,
                          const uint8_t *p, size_t n, size_t *used)

cdef class Group:
    cdef tbf_group g
    cdef public int64_t opened_ns
    cdef public object value
    cdef public uint64_t seq
    cdef public uint32_t last_key
    cdef public uint64_t points, held_bytes, dropped_records
    cdef readonly list waiters
    cdef int grow(self) except -1

cdef class Ingest:
    cdef readonly Batch batch
    cdef readonly Group group
    cdef list _spare
    cdef uint64_t _serial
    cdef readonly uint64_t clock_steps   # times the clock was set by more than is bridged
    cdef readonly int64_t clock_step_ms  # by how much the last time
    cdef tbf_session *sessions
    cdef readonly uint32_t capacity
    cdef dict _profiles
    cdef dict _quiet
    cdef tbf_json_opts json
    cdef tbf_walk_context context
    cdef readonly Rates rates
    cdef int set_time(self, int64_t wall_ms, int64_t mono_ns) except -1
    cdef int grow(self) except -1
    cdef int account(self, uint8_t scope, uint64_t device, uint32_t points) except -1
    cdef tuple _append(self, uint64_t device, object data, Table table, bint attributes,
                       uint8_t scope)
    cdef int ensure_slot(self, uint32_t slot) except -1

    cdef int note_quiet(self, uint64_t device) except -1

    # After each run of messages: a session that sent one without rows is remembered for it.
    cdef inline int look_at_session(self, uint32_t slot) except -1:
        if self.sessions[slot].quiet:
            self.sessions[slot].quiet = False
            self.note_quiet(self.sessions[slot].device)
        return 0

    # Before each read of a socket: limits are in force for the next message.
    cdef inline void look_at_rates(self) noexcept nogil:
        if self.context.refusal != NULL:
            self.context.rates = self.rates.in_force()
