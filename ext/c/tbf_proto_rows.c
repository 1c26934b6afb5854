/* Protobuf payloads to rows, in the types that the JSON reader would give the printed text. */
#include "tbf_json_nested.h"
#include "tbf_num.h"
#include "tbf_out.h"
#include "tbf_proto_print.h"
#include "tbf_shortest.h"

typedef struct {
    tbf_json_walk json; /* what typing of values needs */
    const tbf_proto_table *t;
    size_t printed; /* JSON text so far; the bound is for the payload */
} rows_work;

static tbf_proto_work scratch_of(const rows_work *r) {
    tbf_batch *b = r->json.b;
    return (tbf_proto_work){.t = r->t, .lo = b->buf + b->len, .hi = b->buf + b->cap};
}

static void keep_scratch(rows_work *r, const tbf_proto_work *w) {
    r->json.b->cap = (size_t)(w->hi - r->json.b->buf);
}

static tbf_status refuse(rows_work *r, const char *words) {
    return tbf_json_refuse(&r->json, words);
}

static bool longer(tbf_span text, uint32_t limit) {
    size_t units = 0;
    for (size_t i = 0; i < text.n && units <= limit; i++) {
        units += (text.p[i] & 0xC0) != 0x80;
        units += text.p[i] >= 0xF0; /* a surrogate pair in Java */
    }
    return units > limit;
}

/* UTF-8 as it is; a backslash is one, not the start of an escape. */
static tbf_status put_text(rows_work *r, tbf_span key, tbf_span text) {
    tbf_tok t = {.text = text, .flags = TBF_TEXT_WIDE};
    if (text.n == 0) {
        t.text.p = (const uint8_t *)"";
    } else if (memchr(text.p, '\\', text.n) != NULL) {
        uint32_t max = r->json.opts->max_string;
        if (max > 0 && longer(text, max)) {
            return tbf_json_poison(&r->json, key, TBF_JSON_STRING_TOO_LONG);
        }
        return tbf_put_blob(r->json.b, key, TBF_STRING, text);
    }
    return tbf_json_put_string(&r->json, key, &t);
}

static tbf_status put_base64(rows_work *r, tbf_span key, tbf_span bytes) {
    const size_t cap = r->json.b->cap;
    uint8_t *text = tbf_json_scratch(r->json.b, 4 * (bytes.n / 3 + 1) + 2);
    if (text == NULL) {
        return TBF_ENOSPACE;
    }
    size_t n = tbf_out_base64(text, bytes);
    tbf_status status = put_text(r, key, (tbf_span){text + 1, n - 2});
    r->json.b->cap = cap;
    return status;
}

static tbf_status put_number(rows_work *r, tbf_span key, const tbf_proto_field *f, uint64_t v) {
    int64_t mantissa;
    uint8_t scale;
    bool exact = false, wide = false;
    if (f->kind == TBF_PROTO_DOUBLE) {
        double d;
        memcpy(&d, &v, sizeof d);
        exact = tbf_double_decimal(d, &mantissa, &scale);
    } else if (f->kind == TBF_PROTO_FLOAT) {
        uint32_t bits = (uint32_t)v;
        float d;
        memcpy(&d, &bits, sizeof d);
        exact = tbf_float_decimal(d, &mantissa, &scale);
    } else if (f->kind == TBF_PROTO_BOOL) {
        return tbf_put_bool(r->json.b, key, v != 0);
    } else if (f->kind == TBF_PROTO_INT64 || f->kind == TBF_PROTO_SINT64 ||
               f->kind == TBF_PROTO_SFIXED64) {
        wide = !r->json.opts->type_cast || r->json.opts->max_string > 0;
    } else {
        wide = f->kind == TBF_PROTO_UINT64 || f->kind == TBF_PROTO_FIXED64 ||
               f->kind == TBF_PROTO_ENUM;
    }
    if (exact && scale <= TBF_NUM_MAX_DECIMALS) {
        return tbf_put_decimal(r->json.b, key, mantissa, scale);
    }
    if (!wide && f->kind != TBF_PROTO_DOUBLE && f->kind != TBF_PROTO_FLOAT) {
        return tbf_put_int64(r->json.b, key, (int64_t)v);
    }
    uint8_t buffer[TBF_PROTO_NUMBER];
    bool quoted;
    tbf_span text = tbf_proto_scalar(r->t, f, v, buffer, &quoted);
    return quoted ? put_text(r, key, text) : tbf_json_put_number(&r->json, key, text);
}

/* Lists, maps and messages: their text, through the JSON reader where that could change it. */
static tbf_status put_nested(rows_work *r, tbf_span key, const tbf_proto_field *f,
                             const tbf_proto_slot *slot) {
    tbf_batch *b = r->json.b;
    const size_t cap = b->cap;
    tbf_proto_printer pr = {.w = scratch_of(r)};
    uint8_t *start = pr.w.lo;
    size_t room = (size_t)(pr.w.hi - start), allowed = r->t->max_printed - r->printed;
    pr.limit = start + (room < allowed ? room : allowed);
    tbf_status status = tbf_proto_print_field(&pr, f, slot);
    if (status == TBF_EREJECT) {
        return refuse(r, pr.w.error);
    }
    if (status != TBF_OK) {
        return status;
    }
    const size_t text_n = (size_t)(pr.w.lo - start);
    r->printed = text_n < allowed ? r->printed + text_n : r->t->max_printed;
    /* The text stands where the point will be written: move it out of the way. */
    b->cap -= text_n;
    memmove(b->buf + b->cap, start, text_n);
    tbf_span text = {b->buf + b->cap, text_n};
    const uint32_t left = r->json.max_depth - r->json.depth;
    bool as_read = !pr.repeats && pr.deepest <= left && pr.widest <= r->json.opts->max_keys;
    status =
        as_read ? tbf_put_blob(b, key, TBF_JSON, text) : tbf_json_put_nested(&r->json, key, text);
    b->cap = cap;
    return status;
}

static tbf_status put_field(rows_work *r, const tbf_proto_field *f, const tbf_proto_slot *slot) {
    tbf_span key = tbf_proto_name(r->t, f);
    tbf_span blob = {slot->first.p, slot->first.p == NULL ? 0 : (size_t)slot->first.v};
    if ((f->flags & TBF_PROTO_REPEATED) != 0 || f->kind == TBF_PROTO_MESSAGE) {
        return put_nested(r, key, f, slot);
    }
    if (f->kind == TBF_PROTO_STRING) {
        return put_text(r, key, blob);
    }
    return f->kind == TBF_PROTO_BYTES ? put_base64(r, key, blob)
                                      : put_number(r, key, f, slot->first.v);
}

/* One record of the message's printed fields. */
static tbf_status put_record(rows_work *r, const tbf_proto_message *m, const tbf_proto_slot *slots,
                             int64_t ts_ms) {
    tbf_json_walk *j = &r->json;
    if (j->depth > j->max_depth) {
        return refuse(r, "nested too deeply");
    }
    tbf_status status = tbf_record_begin(j->b, j->device, j->kind, ts_ms);
    uint32_t members = 0;
    for (uint32_t i = 0; i < m->field_count && status == TBF_OK; i++) {
        const tbf_proto_field *f = &r->t->fields[m->first_field + i];
        if (!tbf_proto_is_printed(f, &slots[i])) {
            continue;
        }
        if (members++ == j->opts->max_keys) {
            return refuse(r, "object has too many members");
        }
        status = put_field(r, f, &slots[i]);
    }
    return status == TBF_OK ? tbf_json_record_end(j) : status;
}

static tbf_status read_message(rows_work *r, const tbf_proto_message *m, const tbf_proto_seen *part,
                               bool checked, tbf_proto_slot **slots) {
    tbf_proto_work w = scratch_of(r);
    tbf_status status = tbf_proto_read(&w, m, part, checked, slots);
    keep_scratch(r, &w);
    return status == TBF_EREJECT ? refuse(r, w.error) : status;
}

/* A root whose fields mean `ts` and `values` in a way of their own: only the reader of JSON knows
 * what then counts. */
static tbf_status put_as_json(rows_work *r, tbf_span payload, tbf_json_result *result) {
    tbf_batch *b = r->json.b;
    tbf_proto_work w = scratch_of(r);
    size_t n;
    const char *error;
    tbf_status status = tbf_proto_print(r->t, payload, w.lo, (size_t)(w.hi - w.lo), &n, &error);
    if (status != TBF_OK) {
        return status == TBF_EREJECT ? refuse(r, error) : status;
    }
    b->cap -= n;
    memmove(b->buf + b->cap, w.lo, n);
    status = tbf_json_telemetry(b, r->json.device, r->json.now_ms, (tbf_span){b->buf + b->cap, n},
                                r->json.opts, result);
    return status == TBF_EREJECT ? refuse(r, result->error) : status;
}

static tbf_status put_root(rows_work *r, tbf_span payload, tbf_json_result *result) {
    const tbf_proto_message *m = &r->t->messages[r->t->head.root];
    const bool telemetry = r->json.kind == TBF_KIND_TELEMETRY;
    if (telemetry && (m->flags & TBF_PROTO_AS_JSON) != 0) {
        return put_as_json(r, payload, result);
    }
    tbf_proto_seen whole = {payload.p, payload.n, NULL};
    tbf_proto_slot *slots;
    tbf_status status = read_message(r, m, &whole, false, &slots);
    if (status != TBF_OK) {
        return status;
    }
    bool both = (m->flags & TBF_PROTO_TIMED) != 0 && slots[0].last != NULL && slots[1].last != NULL;
    if (!telemetry || !both) {
        return put_record(r, m, slots, r->json.now_ms);
    }
    const tbf_proto_field *fields = &r->t->fields[m->first_field];
    uint32_t ts = (uint32_t)(tbf_proto_times(r->t, m) - fields), values = 1 - ts;
    if (r->json.opts->max_keys < 2) {
        return refuse(r, "object has too many members");
    }
    int64_t ts_ms = (int64_t)slots[ts].first.v;
    m = &r->t->messages[fields[values].type];
    status = read_message(r, m, &slots[values].first, true, &slots);
    r->json.depth++;
    return status == TBF_OK ? put_record(r, m, slots, ts_ms) : status;
}

tbf_status tbf_proto_rows(tbf_batch *b, const tbf_proto_table *t, uint64_t device, tbf_kind kind,
                          int64_t now_ms, tbf_span payload, const tbf_json_opts *opts,
                          tbf_json_result *result) {
    const tbf_mark mark = tbf_batch_mark(b);
    const size_t cap = b->cap; /* what is taken off as scratch memory comes back here */
    const uint32_t depth = opts->max_depth < 1 ? 1 : opts->max_depth;
    rows_work r = {.t = t,
                   .json = {.x = {.p = payload.p, .end = payload.p + payload.n},
                            .b = b,
                            .opts = opts,
                            .device = device,
                            .kind = kind,
                            .now_ms = now_ms,
                            .max_depth = depth < TBF_JSON_DEPTH_CAP ? depth : TBF_JSON_DEPTH_CAP,
                            .depth = 1}};
    tbf_status status = put_root(&r, payload, result);
    b->cap = cap;
    if (TBF_UNLIKELY(status != TBF_OK)) {
        tbf_batch_rollback(b, &mark);
    }
    *result = (tbf_json_result){.records = b->record_count - mark.record_count,
                                .points = b->point_count - mark.point_count,
                                .error = status == TBF_EREJECT ? r.json.error : NULL};
    return status;
}
