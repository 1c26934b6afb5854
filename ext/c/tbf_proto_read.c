/* See tbf_proto_read.h. */
#include "tbf_proto_read.h"
#include "tbf_text.h"

typedef enum {
    WIRE_VARINT = 0,
    WIRE_64 = 1,
    WIRE_BYTES = 2,
    WIRE_GROUP = 3,
    WIRE_GROUP_END = 4,
    WIRE_32 = 5
} wire_type;

static const uint8_t WIRE_OF[TBF_PROTO_KINDS] = {
    [TBF_PROTO_DOUBLE] = WIRE_64,    [TBF_PROTO_FLOAT] = WIRE_32,
    [TBF_PROTO_INT64] = WIRE_VARINT, [TBF_PROTO_UINT64] = WIRE_VARINT,
    [TBF_PROTO_INT32] = WIRE_VARINT, [TBF_PROTO_FIXED64] = WIRE_64,
    [TBF_PROTO_FIXED32] = WIRE_32,   [TBF_PROTO_BOOL] = WIRE_VARINT,
    [TBF_PROTO_STRING] = WIRE_BYTES, [TBF_PROTO_MESSAGE] = WIRE_BYTES,
    [TBF_PROTO_BYTES] = WIRE_BYTES,  [TBF_PROTO_UINT32] = WIRE_VARINT,
    [TBF_PROTO_ENUM] = WIRE_VARINT,  [TBF_PROTO_SFIXED32] = WIRE_32,
    [TBF_PROTO_SFIXED64] = WIRE_64,  [TBF_PROTO_SINT32] = WIRE_VARINT,
    [TBF_PROTO_SINT64] = WIRE_VARINT};

static const char CUT_SHORT[] = "Protobuf field is cut short or malformed";
static const char BAD_TAG[] = "Protobuf tag is malformed";
static const char TOO_DEEP[] = "Protobuf messages are nested too deeply";
static const char TOO_MANY[] = "Protobuf message has too many fields";
static const char BAD_TEXT[] = "Protobuf string is not UTF-8";

static uint64_t widen(uint32_t kind, uint64_t raw) {
    switch (kind) {
    case TBF_PROTO_INT32:
    case TBF_PROTO_SFIXED32:
    case TBF_PROTO_ENUM:
        return (uint64_t)(int64_t)(int32_t)(uint32_t)raw;
    case TBF_PROTO_UINT32:
    case TBF_PROTO_FIXED32:
        return (uint32_t)raw;
    case TBF_PROTO_BOOL:
        return raw != 0;
    case TBF_PROTO_SINT32:
        return (uint64_t)tbf_unzigzag((uint32_t)raw);
    case TBF_PROTO_SINT64:
        return (uint64_t)tbf_unzigzag(raw);
    default:
        return raw;
    }
}

/* Reads one number or the head and body of a length-delimited field; NULL: malformed. */
static const uint8_t *take(wire_type wire, const uint8_t *p, const uint8_t *end, uint64_t *v,
                           tbf_span *body) {
    switch (wire) {
    case WIRE_VARINT:
        return tbf_get_varint(p, end, v);
    case WIRE_64:
        if ((size_t)(end - p) < 8) {
            return NULL;
        }
        *v = tbf_load64(p);
        return p + 8;
    case WIRE_32:
        if ((size_t)(end - p) < 4) {
            return NULL;
        }
        *v = tbf_load32(p);
        return p + 4;
    case WIRE_BYTES:
        p = tbf_get_varint(p, end, v);
        if (p == NULL || (uint64_t)(end - p) < *v) {
            return NULL;
        }
        *body = (tbf_span){p, (size_t)*v};
        return p + body->n;
    case WIRE_GROUP:
    case WIRE_GROUP_END:
        break;
    }
    return NULL;
}

static const uint8_t *take_tag(const uint8_t *p, const uint8_t *end, uint32_t *number,
                               wire_type *wire) {
    uint64_t tag;
    p = tbf_get_varint(p, end, &tag);
    if (p == NULL || tag > UINT32_MAX || tag >> 3 == 0 || (tag & 7) > WIRE_32) {
        return NULL;
    }
    *number = (uint32_t)(tag >> 3);
    *wire = (wire_type)(tag & 7);
    return p;
}

/* Skips a group whose start is consumed, with the groups in it; NULL: malformed or too deep. */
static const uint8_t *skip_group(const uint8_t *p, const uint8_t *end, uint32_t number,
                                 uint32_t depth_left, uint32_t *fields_left) {
    while (depth_left > 0 && *fields_left > 0) {
        uint32_t inner;
        wire_type wire;
        uint64_t v;
        tbf_span body;
        p = take_tag(p, end, &inner, &wire);
        --*fields_left;
        if (p == NULL || (wire == WIRE_GROUP_END && inner == number)) {
            return p;
        }
        p = wire == WIRE_GROUP ? skip_group(p, end, inner, depth_left - 1, fields_left)
                               : take(wire, p, end, &v, &body);
        if (p == NULL) {
            return NULL;
        }
    }
    return NULL;
}

static const tbf_proto_field *find(const tbf_proto_table *t, const tbf_proto_message *m,
                                   uint32_t number) {
    const tbf_proto_field *fields = t->fields + m->first_field;
    if (TBF_LIKELY(number <= m->dense_count)) {
        uint32_t at = t->dense[m->first_dense + number - 1];
        return at == 0 ? NULL : &fields[at - 1];
    }
    uint32_t low = 0, high = m->field_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (fields[middle].number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < m->field_count && fields[low].number == number ? &fields[low] : NULL;
}

static bool is_utf8(tbf_span text) {
    const uint8_t *p = text.p, *end = p + text.n;
    while (p < end) {
        bool valid = true;
        while ((size_t)(end - p) >= 8 && (tbf_load64(p) & 0x8080808080808080u) == 0) {
            p += 8;
        }
        if (p < end) {
            p += tbf_utf8_sequence(p, (size_t)(end - p), &valid);
        }
        if (!valid) {
            return false;
        }
    }
    return true;
}

static bool packed_is_good(uint32_t kind, tbf_span packed) {
    const uint8_t *p = packed.p, *end = p + packed.n;
    uint64_t v;
    tbf_span none;
    while (p < end) {
        p = take((wire_type)WIRE_OF[kind], p, end, &v, &none);
        if (p == NULL) {
            return false;
        }
    }
    return true;
}

uint64_t tbf_proto_unpack(tbf_proto_kind kind, tbf_span *packed) {
    uint64_t v = 0;
    tbf_span none;
    const uint8_t *end = packed->p + packed->n;
    const uint8_t *p = take((wire_type)WIRE_OF[kind], packed->p, end, &v, &none);
    *packed = p == NULL ? (tbf_span){end, 0} : (tbf_span){p, (size_t)(end - p)};
    return widen(kind, v);
}

static tbf_status keep(tbf_proto_work *w, const tbf_proto_message *m, const tbf_proto_field *f,
                       tbf_proto_slot *slots, tbf_proto_seen seen) {
    uint32_t index = (uint32_t)(f - (w->t->fields + m->first_field));
    tbf_proto_slot *slot = &slots[index];
    if (f->oneof != 0) {
        uint64_t *current = &slots[m->field_count + f->oneof - 1].first.v;
        if (*current != 0 && *current != index + 1) {
            slots[*current - 1].last = NULL;
        }
        *current = index + 1;
    }
    bool chained = (f->flags & TBF_PROTO_REPEATED) != 0 || f->kind == TBF_PROTO_MESSAGE;
    if (TBF_LIKELY(slot->last == NULL || !chained)) {
        slot->first = seen;
        slot->last = &slot->first;
        return TBF_OK;
    }
    tbf_proto_seen *more = tbf_proto_scratch(w, sizeof *more);
    if (more == NULL) {
        return TBF_ENOSPACE;
    }
    *more = seen;
    slot->last->next = more;
    slot->last = more;
    return TBF_OK;
}

typedef struct {
    tbf_proto_slot *slots; /* NULL: only check */
    uint32_t depth_left;   /* messages that may be below this one; 0 when `checked` */
    uint32_t fields_left;
    bool checked;
} scan_state;

static tbf_status scan(tbf_proto_work *w, const tbf_proto_message *m, tbf_span part, scan_state *s);

static tbf_status check(tbf_proto_work *w, const tbf_proto_field *f, tbf_span body,
                        const scan_state *s) {
    switch (f->kind) {
    case TBF_PROTO_STRING:
        return is_utf8(body) ? TBF_OK : tbf_proto_refuse(w, BAD_TEXT);
    case TBF_PROTO_BYTES:
        return TBF_OK;
    case TBF_PROTO_MESSAGE:
        if (s->depth_left == 0) {
            return tbf_proto_refuse(w, TOO_DEEP);
        }
        scan_state below = {.depth_left = s->depth_left - 1, .fields_left = w->t->max_fields};
        return scan(w, &w->t->messages[f->type], body, &below);
    default:
        return packed_is_good(f->kind, body) ? TBF_OK : tbf_proto_refuse(w, CUT_SHORT);
    }
}

static tbf_status scan(tbf_proto_work *w, const tbf_proto_message *m, tbf_span part,
                       scan_state *s) {
    const uint8_t *p = part.p, *end = p + part.n;
    while (p < end) {
        uint32_t number;
        wire_type wire;
        uint64_t v = 0;
        tbf_span body = {NULL, 0};
        p = take_tag(p, end, &number, &wire);
        if (TBF_UNLIKELY(p == NULL)) {
            return tbf_proto_refuse(w, BAD_TAG);
        }
        if (TBF_UNLIKELY(s->fields_left-- == 0)) {
            return tbf_proto_refuse(w, TOO_MANY);
        }
        p = wire == WIRE_GROUP ? skip_group(p, end, number, w->t->max_depth, &s->fields_left)
                               : take(wire, p, end, &v, &body);
        if (TBF_UNLIKELY(p == NULL)) {
            return tbf_proto_refuse(w, CUT_SHORT);
        }
        const tbf_proto_field *f = find(w->t, m, number);
        if (f == NULL) {
            continue;
        }
        bool packed = wire == WIRE_BYTES && (f->flags & TBF_PROTO_REPEATED) != 0 &&
                      tbf_proto_is_number(f->kind);
        if (wire != WIRE_OF[f->kind] && !packed) {
            continue; /* as Protobuf: a field it does not know */
        }
        tbf_status status = TBF_OK;
        if (wire == WIRE_BYTES && !s->checked) {
            status = check(w, f, body, s);
        }
        if (status == TBF_OK && s->slots != NULL) {
            bool blob = wire == WIRE_BYTES;
            tbf_proto_seen seen = {.p = blob ? body.p : NULL, .v = blob ? v : widen(f->kind, v)};
            status = keep(w, m, f, s->slots, seen);
        }
        if (TBF_UNLIKELY(status != TBF_OK)) {
            return status;
        }
    }
    return TBF_OK;
}

tbf_status tbf_proto_read(tbf_proto_work *w, const tbf_proto_message *m, const tbf_proto_seen *part,
                          bool checked, tbf_proto_slot **slots) {
    size_t n = ((size_t)m->field_count + m->oneof_count) * sizeof **slots;
    *slots = tbf_proto_scratch(w, n);
    if (*slots == NULL) {
        return TBF_ENOSPACE;
    }
    memset(*slots, 0, n);
    scan_state s = {.slots = *slots,
                    .depth_left = w->t->max_depth - 1,
                    .fields_left = w->t->max_fields,
                    .checked = checked};
    tbf_status status = TBF_OK;
    for (; part != NULL && status == TBF_OK; part = part->next) {
        if (part->v > 0) { /* nothing may also be NULL */
            status = scan(w, m, (tbf_span){part->p, (size_t)part->v}, &s);
        }
    }
    return status;
}
