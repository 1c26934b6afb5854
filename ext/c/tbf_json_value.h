/* From token to point: the typing rules of MQTT spec 3.3, shared by both passes. */
#ifndef TBF_JSON_VALUE_H
#define TBF_JSON_VALUE_H

#include "tbf_json.h"
#include "tbf_json_lex.h"

/* Hard bound of max_depth: stacks of this size are on the C stack. */
#define TBF_JSON_DEPTH_CAP 255u

/* One payload on its way into the batch. */
typedef struct {
    tbf_lex x;
    tbf_batch *b;
    const tbf_json_opts *opts;
    uint64_t device;
    tbf_kind kind;
    int64_t now_ms;
    uint32_t max_depth; /* opts->max_depth, 1 to TBF_JSON_DEPTH_CAP */
    uint32_t depth;     /* of the object being read; the outermost value has 1 */
    uint32_t bad_utf8;
    bool poisoned; /* the current record holds a value to refuse, see tbf_json_poison */
    const char *error;
    const uint8_t *error_at;
} tbf_json_walk;

extern const char TBF_JSON_STRING_TOO_LONG[];

/* Refuses the payload, with fixed words. */
tbf_status tbf_json_refuse(tbf_json_walk *w, const char *words);

/* Takes n bytes off the end of the batch's buffer as scratch memory; NULL: too small.  Given back
 * by restoring b->cap. */
uint8_t *tbf_json_scratch(tbf_batch *b, size_t n);

/* A value that refuses the payload if it is still there at the end of its record: a later member
 * of that name, or the shape {"ts","values"}, can make it irrelevant.  Written as a point of type
 * BYTES, which JSON itself never produces. */
tbf_status tbf_json_poison(tbf_json_walk *w, tbf_span key, const char *words);
/* Ends the record, or refuses the payload if a poisoned point is alive in it. */
tbf_status tbf_json_record_end(tbf_json_walk *w);

/* Decodes the name of a member that has escapes or broken text, into scratch memory. */
tbf_status tbf_json_decode_key(tbf_json_walk *w, const tbf_tok *name, tbf_span *key);

tbf_status tbf_json_put_number(tbf_json_walk *w, tbf_span key, tbf_span text);
tbf_status tbf_json_put_string(tbf_json_walk *w, tbf_span key, const tbf_tok *t);

/* `ts` of a record (MQTT spec 3.2): false if it is no number and no string with an integer, or is
 * outside int64. */
bool tbf_json_odd_time(const tbf_json_walk *w, tbf_tok_kind kind, const tbf_tok *t, int64_t *ts_ms);
static inline bool tbf_json_time(const tbf_json_walk *w, tbf_tok_kind kind, const tbf_tok *t,
                                 int64_t *ts_ms) {
    if (TBF_LIKELY(kind == TBF_TOK_NUMBER && t->small && t->decimals == 0)) {
        *ts_ms = (int64_t)(t->negative ? 0 - t->mantissa : t->mantissa);
        return true;
    }
    return tbf_json_odd_time(w, kind, t, ts_ms);
}

static inline tbf_status tbf_json_put_small(tbf_json_walk *w, tbf_span key, const tbf_tok *t) {
    uint64_t v = t->mantissa;
    uint32_t decimals = t->decimals;
    if (decimals == 0) {
        return tbf_put_int64(w->b, key, (int64_t)(t->negative ? 0 - v : v));
    }
    if (TBF_UNLIKELY(decimals > 16)) {
        return tbf_json_put_number(w, key, t->text);
    }
    while (decimals > 1 && v % 10 == 0) {
        v /= 10;
        decimals--;
    }
    return tbf_put_decimal(w->b, key, (int64_t)(t->negative ? 0 - v : v), (uint8_t)decimals);
}

#endif
