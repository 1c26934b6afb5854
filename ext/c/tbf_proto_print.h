/* Values as canonical protobuf-JSON (MQTT spec 7.3): compact, defaults included. */
#ifndef TBF_PROTO_PRINT_H
#define TBF_PROTO_PRINT_H

#include "tbf_proto_read.h"

/* Longest text of a number with its quotes. */
#define TBF_PROTO_NUMBER 32u

/* What the text needs of whoever reads it again. */
typedef struct {
    tbf_proto_work w;
    uint8_t *limit;   /* the text may not grow past it */
    uint32_t depth;   /* of the value being printed */
    uint32_t deepest; /* objects and arrays within each other */
    uint32_t widest;  /* members of one object */
    bool repeats;     /* an object may hold a name twice: a map of several pairs */
} tbf_proto_printer;

/* Text of a number, enum or boolean without quotes; returns its length, at most
 * max(TBF_PROTO_NUMBER, longest name of an enum value).  *quoted: JSON wants quotes around it. */
tbf_span tbf_proto_scalar(const tbf_proto_table *t, const tbf_proto_field *f, uint64_t v,
                          uint8_t buffer[TBF_PROTO_NUMBER], bool *quoted);

/* Prints at w.lo.  TBF_OK, TBF_ENOSPACE, TBF_EREJECT (the limit). */
tbf_status tbf_proto_print_field(tbf_proto_printer *pr, const tbf_proto_field *f,
                                 const tbf_proto_slot *slot);
tbf_status tbf_proto_print_message(tbf_proto_printer *pr, const tbf_proto_message *m,
                                   const tbf_proto_seen *part, bool checked);

/* Whether the field is a member of the printed object. */
static inline bool tbf_proto_is_printed(const tbf_proto_field *f, const tbf_proto_slot *slot) {
    return slot->last != NULL || (f->flags & TBF_PROTO_PRESENCE) == 0;
}

#endif
