/* Device side of a load test: PUBLISH frames stamped from a template, and the messages of one
 * connection that wait for their acknowledgement. */
#ifndef TBF_LOAD_H
#define TBF_LOAD_H

#include "tbf_base.h"

#define TBF_LOAD_TS_DIGITS 13u   /* Unix ms from 2001 to 2286 */
#define TBF_LOAD_VALUE_DIGITS 2u /* 10..99 */

/* One encoded PUBLISH and where copies differ.  All places lie inside the frame. */
typedef struct {
    const uint8_t *frame;
    size_t n;
    size_t id_at;           /* packet identifier; 0: QoS 0 has none */
    size_t ts_at;           /* TBF_LOAD_TS_DIGITS digits; 0: the payload has no time of its own */
    const uint32_t *values; /* places of TBF_LOAD_VALUE_DIGITS digits each */
    size_t value_count;
} tbf_load_template;

/* Writes one copy (t->n bytes) at out; values follow from seq.  Returns t->n. */
size_t tbf_load_stamp(uint8_t *out, const tbf_load_template *t, uint16_t packet_id, uint64_t ts_ms,
                      uint64_t seq);

/* --- messages in flight ------------------------------------------------------------------- */

/* Where a message stands; the packet it waits for (MQTT 5 4.3). */
typedef enum {
    TBF_LOAD_FREE = 0,
    TBF_LOAD_PUBACK,
    TBF_LOAD_PUBREC,
    TBF_LOAD_PUBCOMP
} tbf_load_wait;

/* Slot i carries packet identifier i + 1.  Free slots are chained. */
typedef struct {
    int64_t intended_ns; /* when the device wanted to send it */
    uint64_t seq;
    uint16_t next; /* of the free chain: identifier, 0 ends it */
    uint8_t wait;  /* tbf_load_wait */
    bool marker;   /* not a message of the test: tells that what was sent before is consumed */
} tbf_load_slot;

typedef struct {
    tbf_load_slot *slots;
    uint16_t capacity;
    uint16_t limit; /* messages allowed in flight: capacity, or the server's Receive Maximum */
    uint16_t in_flight;
    uint16_t free; /* identifier, 0: none */
} tbf_load_window;

void tbf_load_window_init(tbf_load_window *w, tbf_load_slot *slots, uint16_t capacity);
/* Takes a slot; NULL when `limit` are in flight. */
tbf_load_slot *tbf_load_begin(tbf_load_window *w, tbf_load_wait wait);
static inline uint16_t tbf_load_id(const tbf_load_window *w, const tbf_load_slot *s) {
    return (uint16_t)(s - w->slots + 1);
}

typedef enum {
    TBF_LOAD_STRAY,   /* no message waits for this packet */
    TBF_LOAD_RELEASE, /* PUBREC: send PUBREL, the message goes on waiting */
    TBF_LOAD_DONE,    /* acknowledged */
    TBF_LOAD_REFUSED  /* answered with a reason code of 0x80 or more: not taken */
} tbf_load_answer;

/* What a PUBACK, PUBREC or PUBCOMP (type of the fixed header) means.  On DONE and REFUSED *slot is
 * free again, its contents valid until the next tbf_load_begin. */
tbf_load_answer tbf_load_answered(tbf_load_window *w, uint8_t type, uint16_t packet_id,
                                  uint8_t reason, tbf_load_slot **slot);

#endif
