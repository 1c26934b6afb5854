/* Wire format to the fields seen of one message; shared by rows and printing. */
#ifndef TBF_PROTO_READ_H
#define TBF_PROTO_READ_H

#include "tbf_proto.h"

#define TBF_PROTO_MAX_NUMBER ((1u << 29) - 1)

/* One value on the wire.  A number: its bits, widened as its kind wants; `p` is NULL.  Text, bytes,
 * a sub-message or packed numbers: p and v bytes of it. */
typedef struct tbf_proto_seen {
    const uint8_t *p;
    uint64_t v;
    struct tbf_proto_seen *next; /* later value of a repeated field, later part of a message */
} tbf_proto_seen;

/* What was seen of one field. */
typedef struct {
    tbf_proto_seen first;
    tbf_proto_seen *last; /* NULL: not set */
} tbf_proto_slot;

/* A payload at work.  Text grows upwards from lo, scratch memory downwards from hi. */
typedef struct {
    const tbf_proto_table *t;
    uint8_t *lo, *hi;
    const char *error;
} tbf_proto_work;

/* Refuses the payload, with fixed words. */
static inline tbf_status tbf_proto_refuse(tbf_proto_work *w, const char *words) {
    w->error = words;
    return TBF_EREJECT;
}

/* Scratch memory, aligned to 8; NULL: no room. */
static inline void *tbf_proto_scratch(tbf_proto_work *w, size_t n) {
    size_t wanted = (n + 7) & ~(size_t)7;
    if (wanted < n || (size_t)(w->hi - w->lo) < 7 || (size_t)(w->hi - w->lo) - 7 < wanted) {
        return NULL;
    }
    w->hi -= wanted;
    w->hi -= (uintptr_t)w->hi & 7;
    return w->hi;
}

static inline tbf_span tbf_proto_name(const tbf_proto_table *t, const tbf_proto_field *f) {
    return (tbf_span){t->names + f->name_off, f->name_len};
}

/* The `ts` field of a message flagged TIMED, `values` being the other; NULL: it is none. */
const tbf_proto_field *tbf_proto_times(const tbf_proto_table *t, const tbf_proto_message *m);

/* Reads a message whose parts are chained from `part`; *slots: one for each field, in scratch
 * memory.  checked: it has been read before as part of another, and all below it with it.
 * TBF_OK, TBF_EREJECT, TBF_ENOSPACE. */
tbf_status tbf_proto_read(tbf_proto_work *w, const tbf_proto_message *m, const tbf_proto_seen *part,
                          bool checked, tbf_proto_slot **slots);

/* Takes the next number of a packed field off the front. */
uint64_t tbf_proto_unpack(tbf_proto_kind kind, tbf_span *packed);

/* Numbers are packed on the wire when this is true. */
static inline bool tbf_proto_is_number(uint32_t kind) {
    return kind != TBF_PROTO_STRING && kind != TBF_PROTO_BYTES && kind != TBF_PROTO_MESSAGE;
}

#endif
