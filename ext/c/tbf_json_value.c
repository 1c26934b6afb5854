/* Typing of JSON values; rules in MQTT spec 3.2 and 3.3. */
#include "tbf_json_value.h"
#include "tbf_block.h"
#include "tbf_num.h"
#include "tbf_text.h"

static const char TOO_MANY_DIGITS[] = "number has more digits than a typed value can hold";
static const char EXPLODING[] = "number has an exponent that is out of bounds";
const char TBF_JSON_STRING_TOO_LONG[] = "string value is longer than allowed";

tbf_status tbf_json_refuse(tbf_json_walk *w, const char *words) {
    w->error = words;
    w->error_at = w->x.p;
    return TBF_EREJECT;
}

uint8_t *tbf_json_scratch(tbf_batch *b, size_t n) {
    if (b->cap - b->len < n) {
        return NULL;
    }
    b->cap -= n;
    return b->buf + b->cap;
}

tbf_status tbf_json_poison(tbf_json_walk *w, tbf_span key, const char *words) {
    if (!w->poisoned) {
        w->poisoned = true;
        w->error = words;
        w->error_at = w->x.p;
    }
    return tbf_put_blob(w->b, key, TBF_BYTES, (tbf_span){NULL, 0});
}

static bool holds_poison(const tbf_batch *b) {
    tbf_span points = {b->buf + b->points_off, b->len - b->points_off};
    tbf_point point;
    while (tbf_next_point(&points, &point) == TBF_OK) {
        if (!point.dead && point.type == TBF_BYTES) {
            return true;
        }
    }
    return false;
}

tbf_status tbf_json_record_end(tbf_json_walk *w) {
    if (TBF_UNLIKELY(w->poisoned) && holds_poison(w->b)) {
        return TBF_EREJECT;
    }
    return tbf_record_end(w->b);
}

tbf_status tbf_json_decode_key(tbf_json_walk *w, const tbf_tok *name, tbf_span *key) {
    bool valid = (name->flags & TBF_TEXT_BROKEN) == 0;
    uint8_t *decoded = tbf_json_scratch(w->b, valid ? name->text.n : TBF_UTF8_MAX * name->text.n);
    if (decoded == NULL) {
        return TBF_ENOSPACE;
    }
    key->n = tbf_text_decode(decoded, name->text, valid, &w->bad_utf8);
    key->p = decoded;
    return TBF_OK;
}

static tbf_status put_plain_text(tbf_json_walk *w, tbf_span key, const tbf_num *num) {
    uint8_t *at;
    tbf_status status = tbf_blob_open(w->b, key, TBF_STRING, num->text_n, &at);
    if (status == TBF_OK) {
        tbf_num_text(at, num);
        tbf_blob_close(w->b, num->text_n);
    }
    return status;
}

tbf_status tbf_json_put_number(tbf_json_walk *w, tbf_span key, tbf_span text) {
    tbf_num num;
    tbf_num_read(text, w->opts->max_plain, &num);
    switch (num.kind) {
    case TBF_NUM_INT64:
        return tbf_put_int64(w->b, key, num.i64);
    case TBF_NUM_DECIMAL:
        return tbf_put_decimal(w->b, key, num.i64, num.scale);
    case TBF_NUM_DOUBLE:
        return tbf_put_double(w->b, key, num.f64);
    case TBF_NUM_TEXT:
        if (w->opts->type_cast) {
            return put_plain_text(w, key, &num);
        }
        return tbf_json_poison(w, key, TOO_MANY_DIGITS);
    case TBF_NUM_EXPLODES:
        break;
    }
    return tbf_json_poison(w, key, EXPLODING);
}

/* Parsable as of MQTT spec 3.3, over decoded characters. */
static bool is_parsable(tbf_span raw) {
    const uint8_t *p = raw.p, *end = raw.p + raw.n;
    uint32_t cp = 0, repaired = 0;
    bool point = false, first = true;
    for (; p < end; first = false) {
        p = tbf_text_next(p, end, &cp, &repaired);
        if (cp == '-') {
            if (!first || p == end) {
                return false;
            }
        } else if (cp == '.') {
            if (point) {
                return false;
            }
            point = true;
        } else if (tbf_digit_value(cp) < 0) {
            return false;
        }
    }
    return !first && cp != '.';
}

/* A number hidden behind escapes or digits of other scripts: put it down in ASCII first. */
static tbf_status put_disguised_number(tbf_json_walk *w, tbf_span key, tbf_span raw) {
    size_t cap = w->b->cap, n = 0;
    uint8_t *ascii = tbf_json_scratch(w->b, raw.n);
    if (ascii == NULL) {
        return TBF_ENOSPACE;
    }
    uint32_t cp, repaired = 0;
    for (const uint8_t *p = raw.p, *end = raw.p + raw.n; p < end;) {
        p = tbf_text_next(p, end, &cp, &repaired);
        ascii[n++] = (uint8_t)(cp == '-' || cp == '.' ? (int)cp : '0' + tbf_digit_value(cp));
    }
    tbf_status status = tbf_json_put_number(w, key, (tbf_span){ascii, n});
    w->b->cap = cap;
    return status;
}

static bool may_start_number(uint8_t c) {
    return (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '\\' || c >= 0x80;
}

tbf_status tbf_json_put_string(tbf_json_walk *w, tbf_span key, const tbf_tok *t) {
    uint32_t max = w->opts->max_string;
    if (max > 0 && t->text.n > max && tbf_text_longer(t->text, max)) {
        return tbf_json_poison(w, key, TBF_JSON_STRING_TOO_LONG);
    }
    if (w->opts->type_cast && t->text.n > 0 && may_start_number(*t->text.p) &&
        is_parsable(t->text)) {
        if ((t->flags & (TBF_TEXT_ESCAPE | TBF_TEXT_WIDE)) == 0) {
            return tbf_json_put_number(w, key, t->text);
        }
        return put_disguised_number(w, key, t->text);
    }
    if (TBF_LIKELY((t->flags & (TBF_TEXT_ESCAPE | TBF_TEXT_BROKEN)) == 0)) {
        return tbf_put_blob(w->b, key, TBF_STRING, t->text);
    }
    bool valid = (t->flags & TBF_TEXT_BROKEN) == 0;
    uint8_t *at;
    tbf_status status =
        tbf_blob_open(w->b, key, TBF_STRING, valid ? t->text.n : TBF_UTF8_MAX * t->text.n, &at);
    if (status == TBF_OK) {
        tbf_blob_close(w->b, tbf_text_decode(at, t->text, valid, &w->bad_utf8));
    }
    return status;
}

/* [+-] ASCII digits within int64, as Long.parseLong. */
static bool read_integer(tbf_span raw, int64_t *out) {
    const uint8_t *p = raw.p, *end = raw.p + raw.n;
    uint32_t cp, repaired = 0;
    bool negative = false, digits = false;
    uint64_t v = 0;
    for (bool first = true; p < end; first = false) {
        p = tbf_text_next(p, end, &cp, &repaired);
        if (first && (cp == '-' || cp == '+')) {
            negative = cp == '-';
            continue;
        }
        if (cp < '0' || cp > '9' || v > (uint64_t)INT64_MAX / 10) {
            return false;
        }
        v = v * 10 + (cp - '0');
        digits = true;
        if (v > (uint64_t)INT64_MAX + negative) {
            return false;
        }
    }
    *out = (int64_t)(negative ? 0 - v : v);
    return digits;
}

bool tbf_json_odd_time(const tbf_json_walk *w, tbf_tok_kind kind, const tbf_tok *t,
                       int64_t *ts_ms) {
    if (kind == TBF_TOK_STRING) {
        return read_integer(t->text, ts_ms);
    }
    return kind == TBF_TOK_NUMBER && tbf_num_integer_part(t->text, w->opts->max_plain, ts_ms);
}
