/* Checking a compiled schema before anything follows it; layout in tbf_proto.h. */
#include "tbf_proto_read.h"

/* Takes `count` records of `size` bytes off the front; NULL: they are not there. */
static const void *take(tbf_span *rest, uint32_t count, size_t size) {
    if (rest->n / size < count) {
        return NULL;
    }
    const void *at = rest->p;
    rest->p += count * size;
    rest->n -= count * size;
    return at;
}

static bool in_range(uint32_t first, uint32_t count, uint32_t total) {
    return first <= total && count <= total - first;
}

/* Names are printed as they are: letters, digits and underscores. */
static bool name_is_good(const tbf_proto_table *t, uint32_t off, uint32_t n) {
    if (!in_range(off, n, t->head.names_len)) {
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint8_t c = t->names[off + i], letter = c | 0x20;
        if (c != '_' && !(c >= '0' && c <= '9') && !(letter >= 'a' && letter <= 'z')) {
            return false;
        }
    }
    return true;
}

static bool field_is_good(const tbf_proto_table *t, const tbf_proto_field *f) {
    bool typed = f->kind == TBF_PROTO_MESSAGE || f->kind == TBF_PROTO_ENUM;
    /* Printing what is unset would never end if a message may hold itself. */
    bool endless = (f->flags & (TBF_PROTO_REPEATED | TBF_PROTO_PRESENCE)) == 0;
    uint32_t types = f->kind == TBF_PROTO_MESSAGE ? t->head.message_count : t->head.enum_count;
    return f->kind > 0 && f->kind < TBF_PROTO_KINDS && f->kind != 10 && f->number > 0 &&
           f->number <= TBF_PROTO_MAX_NUMBER && (!endless || f->kind != TBF_PROTO_MESSAGE) &&
           (!typed || f->type < types) && name_is_good(t, f->name_off, f->name_len);
}

const tbf_proto_field *tbf_proto_times(const tbf_proto_table *t, const tbf_proto_message *m) {
    const tbf_proto_field *fields = t->fields + m->first_field;
    const tbf_proto_field *ts = NULL, *values = NULL;
    for (uint32_t i = 0; i < m->field_count; i++) {
        tbf_span name = tbf_proto_name(t, &fields[i]);
        if (name.n == 2 && memcmp(name.p, "ts", 2) == 0) {
            ts = &fields[i];
        } else if (name.n == 6 && memcmp(name.p, "values", 6) == 0) {
            values = &fields[i];
        }
    }
    bool timed = ts != NULL && values != NULL && ts->kind == TBF_PROTO_INT64 &&
                 ts->flags == TBF_PROTO_PRESENCE && values->kind == TBF_PROTO_MESSAGE &&
                 (values->flags & TBF_PROTO_REPEATED) == 0;
    return timed ? ts : NULL;
}

static bool message_is_good(const tbf_proto_table *t, const tbf_proto_message *m) {
    if (m->oneof_count > m->field_count ||
        !in_range(m->first_field, m->field_count, t->head.field_count) ||
        !in_range(m->first_dense, m->dense_count, t->head.dense_count)) {
        return false;
    }
    const tbf_proto_field *fields = t->fields + m->first_field;
    for (uint32_t i = 0; i < m->field_count; i++) {
        if (!field_is_good(t, &fields[i]) || fields[i].oneof > m->oneof_count ||
            (fields[i].oneof != 0 && (fields[i].flags & TBF_PROTO_REPEATED) != 0) ||
            (i > 0 && fields[i - 1].number >= fields[i].number)) {
            return false;
        }
    }
    for (uint32_t i = 0; i < m->dense_count; i++) {
        uint32_t at = t->dense[m->first_dense + i];
        if (at > m->field_count || (at != 0 && fields[at - 1].number != i + 1)) {
            return false;
        }
    }
    if ((m->flags & TBF_PROTO_ENTRY) != 0) {
        return m->field_count == 2 && fields[0].number == 1 && fields[1].number == 2 &&
               (fields[0].flags & TBF_PROTO_REPEATED) == 0 &&
               (fields[1].flags & TBF_PROTO_REPEATED) == 0 && fields[0].kind != TBF_PROTO_MESSAGE &&
               fields[0].kind != TBF_PROTO_BYTES && fields[0].kind != TBF_PROTO_ENUM &&
               fields[0].kind != TBF_PROTO_FLOAT && fields[0].kind != TBF_PROTO_DOUBLE;
    }
    if ((m->flags & TBF_PROTO_TIMED) != 0) {
        return m->field_count == 2 && tbf_proto_times(t, m) != NULL;
    }
    return true;
}

static bool enum_is_good(const tbf_proto_table *t, const tbf_proto_enum *e) {
    if (!in_range(e->first_value, e->value_count, t->head.value_count)) {
        return false;
    }
    for (uint32_t i = 0; i < e->value_count; i++) {
        const tbf_proto_value *v = &t->values[e->first_value + i];
        if (!name_is_good(t, v->name_off, v->name_len) ||
            (i > 0 && (int32_t)v[-1].number >= (int32_t)v->number)) {
            return false;
        }
    }
    return true;
}

tbf_status tbf_proto_load(tbf_span bytes, tbf_proto_table *out) {
    tbf_span rest = bytes;
    const void *head = take(&rest, 1, sizeof out->head);
    if (head == NULL) {
        return TBF_ECORRUPT;
    }
    memcpy(&out->head, head, sizeof out->head);
    const tbf_proto_head *h = &out->head;
    out->messages = take(&rest, h->message_count, sizeof *out->messages);
    out->fields = take(&rest, h->field_count, sizeof *out->fields);
    out->dense = take(&rest, h->dense_count, sizeof *out->dense);
    out->enums = take(&rest, h->enum_count, sizeof *out->enums);
    out->values = take(&rest, h->value_count, sizeof *out->values);
    out->names = take(&rest, h->names_len, 1);
    if (h->magic != TBF_PROTO_MAGIC || h->root >= h->message_count || out->messages == NULL ||
        out->fields == NULL || out->dense == NULL || out->enums == NULL || out->values == NULL ||
        out->names == NULL || rest.n != 0) {
        return TBF_ECORRUPT;
    }
    for (uint32_t i = 0; i < h->message_count; i++) {
        if (!message_is_good(out, &out->messages[i])) {
            return TBF_ECORRUPT;
        }
    }
    for (uint32_t i = 0; i < h->enum_count; i++) {
        if (!enum_is_good(out, &out->enums[i])) {
            return TBF_ECORRUPT;
        }
    }
    return TBF_OK;
}
