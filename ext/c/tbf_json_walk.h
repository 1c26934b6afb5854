/* The walk over a payload (shapes of MQTT spec 3.2), compiled once per lexer.
 *
 * Define before including: LEX(name), the lexer's functions start, value, name, element, at_end;
 * WALK(name), the prefix of what is defined here.  The includer defines WALK(nested), WALK(skip)
 * and WALK(may_be_timed).  No include guard: two passes, one set of rules.
 *
 * TBF_EMALFORMED means that the text is outside the lexer's dialect. */
#include "tbf_json_value.h"

/* Puts the object or array whose bracket is consumed as a point; or only skips it. */
static tbf_status WALK(nested)(tbf_json_walk *w, tbf_span key, tbf_tok_kind kind);
static tbf_status WALK(skip)(tbf_json_walk *w, tbf_tok_kind kind);
/* A cheap guess whether the first name of the object at x->p is `ts`. */
static bool WALK(may_be_timed)(const tbf_lex *x);

/* Where the members that make a record timed were last seen; NULL = not at all. */
typedef struct {
    const uint8_t *ts, *values;
} WALK(shape);

static inline bool WALK(is)(tbf_span name, const char *word, size_t n) {
    return name.n == n && memcmp(name.p, word, n) == 0;
}

static inline void WALK(note)(WALK(shape) * shape, tbf_span name, const uint8_t *value) {
    if (WALK(is)(name, "ts", 2)) {
        shape->ts = value;
    } else if (WALK(is)(name, "values", 6)) {
        shape->values = value;
    }
}

static inline tbf_status WALK(put)(tbf_json_walk *w, tbf_span key) {
    tbf_tok t;
    tbf_tok_kind kind = LEX(value)(&w->x, &t);
    switch (kind) {
    case TBF_TOK_NUMBER:
        return t.small ? tbf_json_put_small(w, key, &t) : tbf_json_put_number(w, key, t.text);
    case TBF_TOK_STRING:
        return tbf_json_put_string(w, key, &t);
    case TBF_TOK_TRUE:
    case TBF_TOK_FALSE:
        return tbf_put_bool(w->b, key, kind == TBF_TOK_TRUE);
    case TBF_TOK_NULL:
        return tbf_put_null(w->b, key);
    case TBF_TOK_OBJECT:
    case TBF_TOK_ARRAY:
        return WALK(nested)(w, key, kind);
    case TBF_TOK_ERROR:
    case TBF_TOK_END:
        break;
    }
    return TBF_EMALFORMED;
}

/* Members of the object whose brace is consumed, up to its closing brace, as points of the current
 * record.  maybe_timed: stops and says so at a member `values`; NULL: a name like any other. */
static tbf_status WALK(members)(tbf_json_walk *w, bool *maybe_timed) {
    size_t cap = w->b->cap;
    for (uint32_t count = 0;; count++) {
        tbf_tok name;
        tbf_tok_kind kind = LEX(name)(&w->x, count == 0, &name);
        if (kind != TBF_TOK_STRING) {
            return kind == TBF_TOK_END ? TBF_OK : TBF_EMALFORMED;
        }
        if (TBF_UNLIKELY(count == w->opts->max_keys)) {
            return tbf_json_refuse(w, "object has too many members");
        }
        tbf_span key = {name.text.p, name.text.n};
        tbf_status status = TBF_OK;
        if (TBF_UNLIKELY((name.flags & (TBF_TEXT_ESCAPE | TBF_TEXT_BROKEN)) != 0) &&
            (status = tbf_json_decode_key(w, &name, &key)) != TBF_OK) {
            return status;
        }
        if (maybe_timed != NULL && WALK(is)(key, "values", 6)) {
            *maybe_timed = true;
            return TBF_OK;
        }
        status = WALK(put)(w, key);
        if (TBF_UNLIKELY(status != TBF_OK)) {
            return status;
        }
        w->b->cap = cap;
    }
}

/* The rest of an object, from member number `count` on: only checked, nothing stored. */
static tbf_status WALK(pass_over)(tbf_json_walk *w, uint32_t count, WALK(shape) * shape) {
    size_t cap = w->b->cap;
    for (;; count++) {
        tbf_tok t;
        tbf_tok_kind kind = LEX(name)(&w->x, count == 0, &t);
        if (kind != TBF_TOK_STRING) {
            return kind == TBF_TOK_END ? TBF_OK : TBF_EMALFORMED;
        }
        if (count >= w->opts->max_keys) {
            return tbf_json_refuse(w, "object has too many members");
        }
        tbf_span key = t.text;
        tbf_status status = TBF_OK;
        if ((t.flags & (TBF_TEXT_ESCAPE | TBF_TEXT_BROKEN)) != 0 &&
            (status = tbf_json_decode_key(w, &t, &key)) != TBF_OK) {
            return status;
        }
        WALK(note)(shape, key, w->x.p);
        w->b->cap = cap;
        kind = LEX(value)(&w->x, &t);
        if (kind == TBF_TOK_OBJECT || kind == TBF_TOK_ARRAY) {
            status = WALK(skip)(w, kind);
        } else if (kind == TBF_TOK_ERROR) {
            status = TBF_EMALFORMED;
        }
        if (status != TBF_OK) {
            return status;
        }
    }
}

/* Record of the `values` object whose brace is consumed. */
static tbf_status WALK(timed_members)(tbf_json_walk *w, int64_t ts_ms) {
    if (w->depth >= w->max_depth) {
        return tbf_json_refuse(w, "nested too deeply");
    }
    tbf_status status = tbf_record_begin(w->b, w->device, w->kind, ts_ms);
    if (status == TBF_OK) {
        w->depth++;
        status = WALK(members)(w, NULL);
        w->depth--;
    }
    return status;
}

/* {"ts":..,"values":{..}} at known places.  Ends at the end of `values`. */
static tbf_status WALK(timed_at)(tbf_json_walk *w, const WALK(shape) * shape) {
    tbf_tok t;
    int64_t ts_ms;
    w->x.p = shape->ts;
    tbf_tok_kind kind = LEX(value)(&w->x, &t);
    if (!tbf_json_time(w, kind, &t, &ts_ms)) {
        return tbf_json_refuse(w, "ts is not an integer of 64 bits");
    }
    w->x.p = shape->values;
    if (LEX(value)(&w->x, &t) != TBF_TOK_OBJECT) {
        return tbf_json_refuse(w, "values is not an object");
    }
    tbf_status status = WALK(timed_members)(w, ts_ms);
    return status == TBF_OK ? tbf_json_record_end(w) : status;
}

/* One object from its first member on, as a record at server time; see members. */
static tbf_status WALK(untimed)(tbf_json_walk *w, bool *maybe_timed) {
    tbf_status status = tbf_record_begin(w->b, w->device, w->kind, w->now_ms);
    if (status == TBF_OK) {
        status = WALK(members)(w, maybe_timed);
    }
    if (status != TBF_OK || (maybe_timed != NULL && *maybe_timed)) {
        return status;
    }
    return tbf_json_record_end(w);
}

/* {"ts":..,"values":{..},...} in this order, the usual one, in one pass.  *maybe_timed: it began
 * otherwise, or one of the two came again; the record is then to be abandoned. */
static tbf_status WALK(timed)(tbf_json_walk *w, bool *maybe_timed) {
    WALK(shape) again = {NULL, NULL};
    tbf_tok name, ts, brace;
    int64_t ts_ms;
    *maybe_timed = true;
    if (LEX(name)(&w->x, true, &name) != TBF_TOK_STRING || !WALK(is)(name.text, "ts", 2) ||
        w->opts->max_keys < 2) {
        return TBF_OK;
    }
    tbf_tok_kind kind = LEX(value)(&w->x, &ts);
    if (!tbf_json_time(w, kind, &ts, &ts_ms) || LEX(name)(&w->x, false, &name) != TBF_TOK_STRING ||
        !WALK(is)(name.text, "values", 6) || LEX(value)(&w->x, &brace) != TBF_TOK_OBJECT) {
        return TBF_OK;
    }
    tbf_status status = WALK(timed_members)(w, ts_ms);
    if (status == TBF_OK) {
        status = WALK(pass_over)(w, 2, &again);
    }
    *maybe_timed = again.ts != NULL || again.values != NULL;
    return status != TBF_OK || *maybe_timed ? status : tbf_json_record_end(w);
}

/* Any object, slowly: first looks where `ts` and `values` are, then stores. */
static tbf_status WALK(look_ahead)(tbf_json_walk *w) {
    const uint8_t *start = w->x.p;
    WALK(shape) shape = {NULL, NULL};
    tbf_status status = WALK(pass_over)(w, 0, &shape);
    if (status != TBF_OK) {
        return status;
    }
    const uint8_t *after = w->x.p;
    if (shape.ts != NULL && shape.values != NULL) {
        status = WALK(timed_at)(w, &shape);
        w->x.p = status == TBF_OK ? after : w->x.p;
        return status;
    }
    w->x.p = start;
    return WALK(untimed)(w, NULL);
}

/* Back to the first member of an object, with nothing of it stored. */
static void WALK(undo)(tbf_json_walk *w, const tbf_mark *mark, const uint8_t *start) {
    tbf_batch_rollback(w->b, mark);
    w->poisoned = false;
    w->x.p = start;
}

/* One element of telemetry; its brace is consumed. */
static tbf_status WALK(record)(tbf_json_walk *w) {
    if (TBF_UNLIKELY(w->depth > w->max_depth)) {
        return tbf_json_refuse(w, "nested too deeply");
    }
    const tbf_mark mark = tbf_batch_mark(w->b);
    const uint8_t *start = w->x.p;
    bool maybe_timed = false;
    tbf_status status;
    w->poisoned = false;
    if (WALK(may_be_timed)(&w->x)) {
        status = WALK(timed)(w, &maybe_timed);
        if (TBF_LIKELY(status != TBF_OK || !maybe_timed)) {
            return status;
        }
        WALK(undo)(w, &mark, start);
        maybe_timed = false;
    }
    status = WALK(untimed)(w, &maybe_timed);
    if (TBF_LIKELY(status != TBF_OK || !maybe_timed)) {
        return status;
    }
    WALK(undo)(w, &mark, start);
    return WALK(look_ahead)(w);
}

static tbf_status WALK(records)(tbf_json_walk *w) {
    w->depth = 2;
    for (bool first = true;; first = false) {
        tbf_tok t;
        tbf_tok_kind kind = LEX(element)(&w->x, first, &t);
        if (kind == TBF_TOK_END) {
            return TBF_OK;
        }
        if (kind == TBF_TOK_ERROR) {
            return TBF_EMALFORMED;
        }
        if (kind != TBF_TOK_OBJECT) {
            return tbf_json_refuse(w, "array element is not an object");
        }
        tbf_status status = WALK(record)(w);
        if (status != TBF_OK) {
            return status;
        }
    }
}

/* The whole payload. */
static tbf_status WALK(document)(tbf_json_walk *w) {
    tbf_tok t;
    tbf_tok_kind kind = LEX(start)(&w->x) ? LEX(value)(&w->x, &t) : TBF_TOK_ERROR;
    tbf_status status;
    if (kind == TBF_TOK_ERROR) {
        return TBF_EMALFORMED;
    }
    if (w->kind == TBF_KIND_CLIENT_ATTR) {
        if (kind != TBF_TOK_OBJECT) {
            return tbf_json_refuse(w, "payload is not an object");
        }
        status = WALK(untimed)(w, NULL); /* attributes know no times */
    } else if (kind == TBF_TOK_OBJECT) {
        status = WALK(record)(w);
    } else if (kind == TBF_TOK_ARRAY) {
        status = WALK(records)(w);
    } else {
        return tbf_json_refuse(w, "payload is neither an object nor an array");
    }
    return status == TBF_OK && !LEX(at_end)(&w->x) ? TBF_EMALFORMED : status;
}
