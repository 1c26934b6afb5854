/* The hot path: one run of plain telemetry PUBLISHes straight from socket bytes to rows.
 *
 * "Plain" = a complete PUBLISH of an open session, QoS 0 or 1, to a telemetry topic of its profile,
 * without MQTT 5 properties, whose payload is accepted in the profile's format.  The first packet
 * that is anything else ends the run untouched and goes through the session engine; both ways give
 * the same bytes and rows (tests/property).
 *
 * The acknowledgement token is the group itself: packet identifiers lie beside the rows, chained
 * per session, and are walked in C once the group is durable.  Nothing here allocates. */
#ifndef TBF_WALK_H
#define TBF_WALK_H

#include "tbf_proto.h"
#include "tbf_rate.h"

/* One message waiting for the commit of its group. */
typedef struct {
    uint32_t next;    /* index + 1 of the session's next one in this group; 0 = last */
    uint32_t read_us; /* when its bytes were read, us since the group was opened */
    uint16_t packet_id;
    uint8_t type; /* packet type to answer with: 4 PUBACK, 5 PUBREC; 0: QoS 0, no answer */
} tbf_owed;

#define TBF_GROUP_ACKS 65536u /* answers that close a group whatever its rows weigh */

/* A session with messages in the group. */
typedef struct {
    uint32_t slot, generation;
    uint32_t first, last; /* index + 1 into acks; 0 = none */
    uint32_t count;       /* answers owed */
} tbf_touched;

typedef struct {
    uint64_t serial; /* never repeats, never 0 */
    tbf_owed *acks;
    uint32_t ack_count, ack_cap;
    tbf_touched *touched;
    uint32_t touched_count, touched_cap;
    uint64_t messages; /* all QoS levels */
    uint64_t bad_utf8;
} tbf_group;

typedef struct {
    uint64_t device;     /* registry number */
    uint64_t group;      /* serial of the group it was last touched in ... */
    uint32_t touched_at; /* ... and its place there */
    uint32_t generation; /* grows when the slot is reused */
    uint32_t awaiting;   /* answers owed in all groups */
    uint8_t version;     /* MQTT protocol level: 3, 4, 5 */
    bool hot;            /* open, and the topics below are telemetry */
    bool takes_v2;       /* v2/t is */
    bool quiet;          /* it sent an accepted message without rows; cleared by the reader */
    uint8_t scope;       /* tbf_rate_scope: whose limits its messages count for */
    /* NULL: the default topic is.  Memory of the owner, as long as the session is hot. */
    const uint8_t *topic;
    uint32_t topic_n;             /* 0 with a topic: no other topic is */
    const tbf_proto_table *proto; /* NULL: payloads are JSON */
    int64_t active_ms;            /* last accepted message, monotonic */
} tbf_session;

/* Notes one accepted message of `slot`.  TBF_ENOSPACE: grow the group's arrays and call again. */
tbf_status tbf_group_note(tbf_group *g, tbf_session *s, uint32_t slot, uint8_t ack_type,
                          uint16_t packet_id, uint32_t read_us);

typedef enum {
    TBF_WALK_DONE,       /* nothing complete is left */
    TBF_WALK_UNUSUAL,    /* a packet for the engine (or malformed bytes) is next */
    TBF_WALK_GROW,       /* batch or group is out of room: grow, call again */
    TBF_WALK_GROUP_FULL, /* rows have reached `rows_limit` or answers their bound: commit, call
                            again */
    TBF_WALK_LIMITED     /* the next message is over the limit in *refusal; nothing of it is kept */
} tbf_walk_end;

typedef struct {
    tbf_batch *batch;
    tbf_group *group;
    const tbf_json_opts *json;
    size_t max_remaining; /* Remaining Length bound */
    size_t rows_limit;    /* bytes of rows that close a group */
    int64_t wall_ms;      /* server time for records without their own */
    int64_t mono_ms;
    uint32_t read_us;
    int64_t mono_ns;
    const tbf_rate_view *rates; /* NULL: no limits */
    tbf_rate_refusal *refusal;
} tbf_walk_context;

/* Consumes as many plain PUBLISHes from the front of p as there are; *used = bytes taken. */
tbf_walk_end tbf_walk(const tbf_walk_context *c, tbf_session *s, uint32_t slot, const uint8_t *p,
                      size_t n, size_t *used);

#endif
