/* See tbf_proto_print.h. */
#include "tbf_proto_print.h"
#include "tbf_out.h"
#include "tbf_shortest.h"

static const char TOO_LONG[] = "Protobuf payload is too long as JSON";

/* Makes sure that n bytes can be written at lo. */
static tbf_status need(tbf_proto_printer *pr, size_t n) {
    if (TBF_UNLIKELY((size_t)(pr->w.hi - pr->w.lo) < n)) {
        return TBF_ENOSPACE;
    }
    if (TBF_UNLIKELY(pr->w.lo > pr->limit)) {
        return tbf_proto_refuse(&pr->w, TOO_LONG);
    }
    return TBF_OK;
}

static tbf_status put(tbf_proto_printer *pr, const void *text, size_t n) {
    tbf_status status = need(pr, n);
    if (status == TBF_OK && n > 0) {
        memcpy(pr->w.lo, text, n);
        pr->w.lo += n;
    }
    return status;
}

static tbf_status put_char(tbf_proto_printer *pr, char c) { return put(pr, &c, 1); }

static tbf_status put_name(tbf_proto_printer *pr, tbf_span name) {
    tbf_status status = need(pr, name.n + 3);
    if (status == TBF_OK) {
        uint8_t *p = pr->w.lo;
        *p++ = '"';
        memcpy(p, name.p, name.n);
        p += name.n;
        *p++ = '"';
        *p++ = ':';
        pr->w.lo = p;
    }
    return status;
}

static tbf_span words(const char *text) { return (tbf_span){(const uint8_t *)text, strlen(text)}; }

static tbf_span unsigned_text(uint8_t buffer[TBF_PROTO_NUMBER], uint64_t v) {
    uint8_t *end = buffer + TBF_PROTO_NUMBER, *p = end;
    do {
        *--p = (uint8_t)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    return (tbf_span){p, (size_t)(end - p)};
}

static tbf_span enum_name(const tbf_proto_table *t, uint32_t type, int32_t number) {
    const tbf_proto_enum *e = &t->enums[type];
    uint32_t low = 0, high = e->value_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const tbf_proto_value *v = &t->values[e->first_value + middle];
        if ((int32_t)v->number == number) {
            return (tbf_span){t->names + v->name_off, v->name_len};
        }
        if ((int32_t)v->number < number) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return (tbf_span){NULL, 0};
}

/* NaN and the infinities by their names, else the digits. */
static tbf_span real_text(uint8_t buffer[TBF_PROTO_NUMBER], uint32_t kind, uint64_t v,
                          bool *quoted) {
    double d;
    float f = 0;
    if (kind == TBF_PROTO_FLOAT) {
        uint32_t bits = (uint32_t)v;
        memcpy(&f, &bits, sizeof f);
        d = (double)f;
    } else {
        memcpy(&d, &v, sizeof d);
    }
    *quoted = !(d - d == 0);
    if (*quoted) {
        return words(d != d ? "NaN" : d > 0 ? "Infinity" : "-Infinity");
    }
    size_t n = kind == TBF_PROTO_FLOAT ? tbf_float_text(buffer, f) : tbf_double_text(buffer, d);
    return (tbf_span){buffer, n};
}

tbf_span tbf_proto_scalar(const tbf_proto_table *t, const tbf_proto_field *f, uint64_t v,
                          uint8_t buffer[TBF_PROTO_NUMBER], bool *quoted) {
    *quoted = false;
    switch (f->kind) {
    case TBF_PROTO_DOUBLE:
    case TBF_PROTO_FLOAT:
        return real_text(buffer, f->kind, v, quoted);
    case TBF_PROTO_BOOL:
        return words(v != 0 ? "true" : "false");
    case TBF_PROTO_UINT64:
    case TBF_PROTO_FIXED64:
        *quoted = true;
        return unsigned_text(buffer, v);
    case TBF_PROTO_INT64:
    case TBF_PROTO_SFIXED64:
    case TBF_PROTO_SINT64:
        *quoted = true;
        break;
    case TBF_PROTO_ENUM: {
        tbf_span name = enum_name(t, f->type, (int32_t)v);
        if (name.p != NULL) {
            *quoted = true;
            return name;
        }
        break;
    }
    default:
        break;
    }
    return (tbf_span){buffer, tbf_out_int64(buffer, (int64_t)v)};
}

static tbf_status print_scalar(tbf_proto_printer *pr, const tbf_proto_field *f, uint64_t v,
                               bool as_name) {
    uint8_t buffer[TBF_PROTO_NUMBER];
    bool quoted;
    tbf_span text = tbf_proto_scalar(pr->w.t, f, v, buffer, &quoted);
    tbf_status status = need(pr, text.n + 2);
    if (status == TBF_OK) {
        uint8_t *p = pr->w.lo;
        if (quoted || as_name) {
            *p++ = '"';
        }
        memcpy(p, text.p, text.n);
        p += text.n;
        if (quoted || as_name) {
            *p++ = '"';
        }
        pr->w.lo = p;
    }
    return status;
}

static tbf_status print_blob(tbf_proto_printer *pr, const tbf_proto_field *f, tbf_span blob) {
    bool text = f->kind == TBF_PROTO_STRING;
    tbf_status status = need(pr, text ? tbf_out_string_bound(blob.n) : 4 * (blob.n / 3 + 1) + 2);
    if (status == TBF_OK) {
        pr->w.lo += text ? tbf_out_string(pr->w.lo, blob) : tbf_out_base64(pr->w.lo, blob);
    }
    return status;
}

static tbf_status open_value(tbf_proto_printer *pr, char bracket) {
    pr->depth++;
    pr->deepest = pr->depth > pr->deepest ? pr->depth : pr->deepest;
    return put_char(pr, bracket);
}

static tbf_status close_value(tbf_proto_printer *pr, char bracket) {
    pr->depth--;
    return put_char(pr, bracket);
}

/* One value; a message may come in several parts. */
static tbf_status print_value(tbf_proto_printer *pr, const tbf_proto_field *f,
                              const tbf_proto_seen *seen) {
    switch (f->kind) {
    case TBF_PROTO_MESSAGE:
        return tbf_proto_print_message(pr, &pr->w.t->messages[f->type], seen, true);
    case TBF_PROTO_STRING:
    case TBF_PROTO_BYTES:
        return print_blob(pr, f, (tbf_span){seen->p, seen->p == NULL ? 0 : (size_t)seen->v});
    default:
        return print_scalar(pr, f, seen->v, false);
    }
}

/* The pair of a map, after its comma. */
static tbf_status print_pair(tbf_proto_printer *pr, const tbf_proto_message *m,
                             const tbf_proto_seen *pair) {
    const tbf_proto_field *key = &pr->w.t->fields[m->first_field], *value = key + 1;
    tbf_proto_seen alone = {pair->p, pair->v, NULL};
    tbf_proto_slot *slots;
    uint8_t *hi = pr->w.hi;
    tbf_status status = tbf_proto_read(&pr->w, m, &alone, true, &slots);
    if (status == TBF_OK) {
        status = key->kind == TBF_PROTO_STRING ? print_value(pr, key, &slots[0].first)
                                               : print_scalar(pr, key, slots[0].first.v, true);
    }
    if (status == TBF_OK) {
        status = put_char(pr, ':');
    }
    if (status == TBF_OK) {
        status = print_value(pr, value, &slots[1].first);
    }
    pr->w.hi = hi;
    return status;
}

static tbf_status print_map(tbf_proto_printer *pr, const tbf_proto_message *m,
                            const tbf_proto_slot *slot) {
    tbf_status status = open_value(pr, '{');
    const tbf_proto_seen *seen = slot->last == NULL ? NULL : &slot->first;
    uint32_t count = 0;
    for (; seen != NULL && status == TBF_OK; seen = seen->next, count++) {
        if (count > 0) {
            pr->repeats = true;
            status = put_char(pr, ',');
        }
        if (status == TBF_OK) {
            status = print_pair(pr, m, seen);
        }
    }
    pr->widest = count > pr->widest ? count : pr->widest;
    return status == TBF_OK ? close_value(pr, '}') : status;
}

static tbf_status print_element(tbf_proto_printer *pr, const tbf_proto_field *f,
                                const tbf_proto_seen *seen, bool *first) {
    tbf_status status = *first ? TBF_OK : put_char(pr, ',');
    *first = false;
    return status == TBF_OK ? print_value(pr, f, seen) : status;
}

static tbf_status print_list(tbf_proto_printer *pr, const tbf_proto_field *f,
                             const tbf_proto_slot *slot) {
    tbf_status status = open_value(pr, '[');
    const tbf_proto_seen *seen = slot->last == NULL ? NULL : &slot->first;
    bool first = true;
    for (; seen != NULL && status == TBF_OK; seen = seen->next) {
        if (seen->p == NULL || !tbf_proto_is_number(f->kind)) {
            tbf_proto_seen alone = {seen->p, seen->v, NULL};
            status = print_element(pr, f, &alone, &first);
            continue;
        }
        tbf_span packed = {seen->p, (size_t)seen->v};
        while (packed.n > 0 && status == TBF_OK) {
            tbf_proto_seen number = {NULL, 0, NULL};
            number.v = tbf_proto_unpack((tbf_proto_kind)f->kind, &packed);
            status = print_element(pr, f, &number, &first);
        }
    }
    return status == TBF_OK ? close_value(pr, ']') : status;
}

tbf_status tbf_proto_print_field(tbf_proto_printer *pr, const tbf_proto_field *f,
                                 const tbf_proto_slot *slot) {
    if ((f->flags & TBF_PROTO_REPEATED) == 0) {
        return print_value(pr, f, &slot->first);
    }
    const tbf_proto_message *m = f->kind == TBF_PROTO_MESSAGE ? &pr->w.t->messages[f->type] : NULL;
    return m != NULL && (m->flags & TBF_PROTO_ENTRY) != 0 ? print_map(pr, m, slot)
                                                          : print_list(pr, f, slot);
}

tbf_status tbf_proto_print_message(tbf_proto_printer *pr, const tbf_proto_message *m,
                                   const tbf_proto_seen *part, bool checked) {
    uint8_t *hi = pr->w.hi;
    tbf_proto_slot *slots;
    tbf_status status = tbf_proto_read(&pr->w, m, part, checked, &slots);
    if (status == TBF_OK) {
        status = open_value(pr, '{');
    }
    uint32_t members = 0;
    for (uint32_t i = 0; i < m->field_count && status == TBF_OK; i++) {
        const tbf_proto_field *f = &pr->w.t->fields[m->first_field + i];
        if (!tbf_proto_is_printed(f, &slots[i])) {
            continue;
        }
        status = members++ > 0 ? put_char(pr, ',') : TBF_OK;
        if (status == TBF_OK) {
            status = put_name(pr, tbf_proto_name(pr->w.t, f));
        }
        if (status == TBF_OK) {
            status = tbf_proto_print_field(pr, f, &slots[i]);
        }
    }
    pr->widest = members > pr->widest ? members : pr->widest;
    pr->w.hi = hi;
    return status == TBF_OK ? close_value(pr, '}') : status;
}

tbf_status tbf_proto_print(const tbf_proto_table *t, tbf_span payload, uint8_t *out, size_t cap,
                           size_t *n, const char **error) {
    size_t most = cap < t->max_printed ? cap : t->max_printed;
    tbf_proto_printer pr = {.w = {.t = t, .lo = out, .hi = out + cap}, .limit = out + most};
    tbf_proto_seen whole = {payload.p, payload.n, NULL};
    tbf_status status = tbf_proto_print_message(&pr, &t->messages[t->head.root], &whole, false);
    *n = (size_t)(pr.w.lo - out);
    *error = pr.w.error;
    return status;
}
