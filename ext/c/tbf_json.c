/* Strict JSON in one pass, and the entry points; the dialect beyond it is in tbf_json_lenient.c. */
#include "tbf_json.h"
#include "tbf_json_lenient.h"
#include "tbf_json_nested.h"

#define SMALL_DIGITS 18u /* any mantissa of that many digits fits int64 */

static inline bool is_space(uint8_t c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

/* Skips white space; false at the end of the text. */
static inline bool skip_space(tbf_lex *x) {
    while (x->p < x->end) {
        if (TBF_LIKELY(*x->p > ' ')) {
            return true;
        }
        if (!is_space(*x->p)) {
            return false;
        }
        x->p++;
        x->spaced = true;
    }
    return false;
}

static bool strict_start(tbf_lex *x) { return skip_space(x); }

static bool strict_at_end(tbf_lex *x) { return !skip_space(x) && x->p == x->end; }

static inline bool is_digit(const uint8_t *p, const uint8_t *end) {
    return p < end && (uint8_t)(*p - '0') < 10;
}

/* Reads an exponent after its `e`; NULL: there is none. */
static const uint8_t *skip_exponent(const uint8_t *p, const uint8_t *end) {
    p += p < end && (*p == '+' || *p == '-');
    if (!is_digit(p, end)) {
        return NULL;
    }
    while (is_digit(p, end)) {
        p++;
    }
    return p;
}

static inline tbf_tok_kind read_number(tbf_lex *x, tbf_tok *t) {
    const uint8_t *start = x->p, *end = x->end, *p = start;
    uint64_t v = 0; /* wraps beyond SMALL_DIGITS, and is not used then */
    t->negative = *p == '-';
    p += t->negative;
    const uint8_t *first = p;
    while (is_digit(p, end)) {
        v = v * 10 + (uint64_t)(*p++ - '0');
    }
    size_t digits = (size_t)(p - first);
    t->decimals = 0;
    if (TBF_UNLIKELY(digits == 0 || (*first == '0' && digits > 1))) {
        return TBF_TOK_ERROR;
    }
    if (p < end && *p == '.') {
        first = ++p;
        while (is_digit(p, end)) {
            v = v * 10 + (uint64_t)(*p++ - '0');
        }
        t->decimals = (uint32_t)(p - first);
        if (TBF_UNLIKELY(t->decimals == 0)) {
            return TBF_TOK_ERROR;
        }
        digits += t->decimals;
    }
    t->small = digits <= SMALL_DIGITS;
    if (TBF_UNLIKELY(p < end && (*p | 0x20) == 'e')) {
        t->small = false;
        p = skip_exponent(p + 1, end);
        if (p == NULL) {
            return TBF_TOK_ERROR;
        }
    }
    t->mantissa = v;
    t->text = (tbf_span){start, (size_t)(p - start)};
    x->p = p;
    return TBF_TOK_NUMBER;
}

static inline tbf_tok_kind read_keyword(tbf_lex *x, const char *word, size_t n, tbf_tok_kind kind) {
    if ((size_t)(x->end - x->p) < n || memcmp(x->p, word, n) != 0) {
        return TBF_TOK_ERROR;
    }
    x->p += n;
    return kind;
}

static inline tbf_tok_kind strict_value(tbf_lex *x, tbf_tok *t) {
    if (TBF_UNLIKELY(!skip_space(x))) {
        return TBF_TOK_ERROR;
    }
    switch (*x->p) {
    case '"':
        x->p++;
        return tbf_lex_string(x, t, '"', false);
    case '-':
    case '0':
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
    case '8':
    case '9':
        return read_number(x, t);
    case '{':
        x->p++;
        return TBF_TOK_OBJECT;
    case '[':
        x->p++;
        return TBF_TOK_ARRAY;
    case 't':
        return read_keyword(x, "true", 4, TBF_TOK_TRUE);
    case 'f':
        return read_keyword(x, "false", 5, TBF_TOK_FALSE);
    case 'n':
        return read_keyword(x, "null", 4, TBF_TOK_NULL);
    default:
        return TBF_TOK_ERROR;
    }
}

/* Takes the comma before a member or element, or the closing bracket in its place. */
static inline tbf_tok_kind separator(tbf_lex *x, bool first, uint8_t closing) {
    if (TBF_UNLIKELY(!skip_space(x))) {
        return TBF_TOK_ERROR;
    }
    if (*x->p == closing) {
        x->p++;
        return TBF_TOK_END;
    }
    if (!first) {
        if (TBF_UNLIKELY(*x->p != ',')) {
            return TBF_TOK_ERROR;
        }
        x->p++;
    }
    return TBF_TOK_NULL;
}

static inline tbf_tok_kind strict_name(tbf_lex *x, bool first, tbf_tok *t) {
    tbf_tok_kind kind = separator(x, first, '}');
    if (kind != TBF_TOK_NULL) {
        return kind;
    }
    if (TBF_UNLIKELY(!skip_space(x) || *x->p != '"')) {
        return TBF_TOK_ERROR;
    }
    x->p++;
    kind = tbf_lex_string(x, t, '"', false);
    if (TBF_UNLIKELY(kind != TBF_TOK_STRING || !skip_space(x) || *x->p != ':')) {
        return TBF_TOK_ERROR;
    }
    x->p++;
    return kind;
}

static inline tbf_tok_kind strict_element(tbf_lex *x, bool first, tbf_tok *t) {
    tbf_tok_kind kind = separator(x, first, ']');
    return kind == TBF_TOK_NULL ? strict_value(x, t) : kind;
}

#define WALK(name) strict_##name
#define LEX(name) strict_##name
#include "tbf_json_walk.h"

static bool strict_may_be_timed(const tbf_lex *x) {
    tbf_lex ahead = *x;
    return skip_space(&ahead) && (size_t)(ahead.end - ahead.p) >= 4 &&
           memcmp(ahead.p, "\"ts\"", 4) == 0;
}

/* ---- nested values ---- */

#define SEEN_NAMES 64u    /* of one nested value: beyond it duplicates are left to the rewriter */
#define SEEN_SIBLINGS 16u /* of one object: each new name is compared with all of them */

typedef struct {
    tbf_span name;
    uint8_t previous; /* sibling, index + 1 */
} seen_name;

typedef struct {
    uint32_t count;
    bool is_object;
    uint8_t newest; /* name seen in this object, index + 1 */
} nesting;

typedef struct {
    nesting levels[TBF_JSON_DEPTH_CAP];
    uint32_t top;
    seen_name seen[SEEN_NAMES];
    uint32_t seen_count;
    bool needs_rewrite; /* null members, perhaps repeated names, broken text */
} nested_scan;

/* Flags the value for rewriting unless the name is certain to be new in its object. */
static inline void see_name(nested_scan *s, nesting *l, const tbf_tok *name) {
    if (s->needs_rewrite) {
        return;
    }
    if (name->flags & ~TBF_TEXT_WIDE || l->count > SEEN_SIBLINGS || s->seen_count == SEEN_NAMES) {
        s->needs_rewrite = true;
        return;
    }
    for (uint32_t i = l->newest; i != 0; i = s->seen[i - 1].previous) {
        const tbf_span other = s->seen[i - 1].name;
        if (other.n == name->text.n && memcmp(other.p, name->text.p, other.n) == 0) {
            s->needs_rewrite = true;
            return;
        }
    }
    s->seen[s->seen_count++] = (seen_name){name->text, l->newest};
    l->newest = (uint8_t)s->seen_count;
}

static inline void nested_push(nested_scan *s, tbf_tok_kind kind) {
    s->levels[s->top++] = (nesting){0, kind == TBF_TOK_OBJECT, 0};
}

/* Checks the nested value whose bracket is consumed, up to its end. */
static tbf_status scan_nested(tbf_json_walk *w, nested_scan *s, tbf_tok_kind kind) {
    tbf_lex x = w->x;
    tbf_status status = TBF_EMALFORMED;
    uint32_t depth_left = w->max_depth - w->depth;
    s->top = s->seen_count = 0;
    s->needs_rewrite = false;
    if (depth_left == 0) {
        return tbf_json_refuse(w, "nested too deeply");
    }
    nested_push(s, kind);
    while (s->top > 0) {
        nesting *l = &s->levels[s->top - 1];
        tbf_tok t;
        if (l->is_object) {
            kind = strict_name(&x, l->count == 0, &t);
            if (kind == TBF_TOK_STRING) {
                if (l->count++ == w->opts->max_keys) {
                    status = tbf_json_refuse(w, "object has too many members");
                    break;
                }
                see_name(s, l, &t);
                kind = strict_value(&x, &t);
                s->needs_rewrite |= kind == TBF_TOK_NULL;
            }
        } else {
            kind = strict_element(&x, l->count++ == 0, &t);
        }
        if (kind == TBF_TOK_STRING) {
            s->needs_rewrite |= (t.flags & (TBF_TEXT_BROKEN | TBF_TEXT_LONE)) != 0;
        } else if (kind == TBF_TOK_OBJECT || kind == TBF_TOK_ARRAY) {
            if (s->top == depth_left) {
                status = tbf_json_refuse(w, "nested too deeply");
                break;
            }
            nested_push(s, kind);
        } else if (kind == TBF_TOK_END) {
            s->top--;
        } else if (kind == TBF_TOK_ERROR) {
            break;
        }
    }
    w->x = x;
    return s->top == 0 ? TBF_OK : status;
}

/* Copies JSON without the white space between its tokens; returns the length written. */
static size_t copy_compact(uint8_t *out, tbf_span text) {
    const uint8_t *p = text.p, *end = p + text.n;
    uint8_t *at = out;
    while (p < end) {
        if (is_space(*p)) {
            p++;
            continue;
        }
        if (*p != '"') {
            *at++ = *p++;
            continue;
        }
        const uint8_t *start = p++;
        while ((p = tbf_skip_plain(p, end, '"')) < end && *p != '"') {
            p += *p == '\\' ? 2 : 1;
        }
        p++;
        memcpy(at, start, (size_t)(p - start));
        at += p - start;
    }
    return (size_t)(at - out);
}

static tbf_status strict_nested(tbf_json_walk *w, tbf_span key, tbf_tok_kind kind) {
    const tbf_lex from = w->x;
    nested_scan s;
    w->x.spaced = false;
    tbf_status status = scan_nested(w, &s, kind);
    if (status != TBF_OK) {
        return status;
    }
    if (s.needs_rewrite) {
        w->x = from;
        return tbf_nested_put(w, key, kind);
    }
    tbf_span text = {from.p - 1, (size_t)(w->x.p - from.p) + 1};
    if (!w->x.spaced) {
        return tbf_put_blob(w->b, key, TBF_JSON, text);
    }
    uint8_t *at;
    status = tbf_blob_open(w->b, key, TBF_JSON, text.n, &at);
    if (status == TBF_OK) {
        tbf_blob_close(w->b, copy_compact(at, text));
    }
    return status;
}

static tbf_status strict_skip(tbf_json_walk *w, tbf_tok_kind kind) {
    nested_scan s;
    return scan_nested(w, &s, kind);
}

tbf_status tbf_json_put_nested(tbf_json_walk *w, tbf_span key, tbf_span text) {
    const tbf_lex outside = w->x;
    w->x = (tbf_lex){.p = text.p + 1, .end = text.p + text.n};
    tbf_status status = strict_nested(w, key, *text.p == '{' ? TBF_TOK_OBJECT : TBF_TOK_ARRAY);
    w->x = outside;
    return status;
}

/* ---- entry points ---- */

/* Brings the walk to the start of the payload. */
static void begin(tbf_json_walk *w, const uint8_t *p) {
    w->x.p = p;
    w->depth = 1;
    w->bad_utf8 = 0;
    w->poisoned = false;
    w->error = NULL;
}

static tbf_status walk(tbf_json_walk *w, tbf_span payload) {
    const tbf_mark mark = tbf_batch_mark(w->b);
    const size_t cap = w->b->cap; /* what is taken off as scratch memory comes back here */
    begin(w, payload.p);
    if (payload.n > INT32_MAX) {
        return tbf_json_refuse(w, "payload is too large");
    }
    tbf_status status = strict_document(w);
    if (TBF_UNLIKELY(status == TBF_EMALFORMED)) {
        w->b->cap = cap;
        tbf_batch_rollback(w->b, &mark);
        begin(w, payload.p);
        status = tbf_lenient_document(w);
        if (status == TBF_EMALFORMED) {
            status = tbf_json_refuse(w, "not JSON");
        }
    }
    w->b->cap = cap;
    if (TBF_UNLIKELY(status != TBF_OK)) {
        tbf_batch_rollback(w->b, &mark);
    }
    return status;
}

static tbf_status apply(tbf_batch *b, uint64_t device, tbf_kind kind, int64_t now_ms,
                        tbf_span payload, const tbf_json_opts *opts, tbf_json_result *result) {
    const uint32_t records = b->record_count, points = b->point_count;
    const uint32_t depth = opts->max_depth < 1 ? 1 : opts->max_depth;
    tbf_json_walk w; /* field by field: clearing all of it shows in the time of a small payload */
    w.x.p = payload.p;
    w.x.end = payload.p + payload.n;
    w.x.spaced = false;
    w.b = b;
    w.opts = opts;
    w.device = device;
    w.kind = kind;
    w.now_ms = now_ms;
    w.max_depth = depth < TBF_JSON_DEPTH_CAP ? depth : TBF_JSON_DEPTH_CAP;
    tbf_status status = walk(&w, payload);
    bool refused = status == TBF_EREJECT;
    result->records = b->record_count - records;
    result->points = b->point_count - points;
    result->bad_utf8 = status == TBF_OK ? w.bad_utf8 : 0;
    result->error_at = refused ? (size_t)(w.error_at - payload.p) : 0;
    result->error = refused ? w.error : NULL;
    return status;
}

tbf_status tbf_json_telemetry(tbf_batch *b, uint64_t device, int64_t now_ms, tbf_span payload,
                              const tbf_json_opts *opts, tbf_json_result *result) {
    return apply(b, device, TBF_KIND_TELEMETRY, now_ms, payload, opts, result);
}

tbf_status tbf_json_attributes(tbf_batch *b, uint64_t device, int64_t now_ms, tbf_span payload,
                               const tbf_json_opts *opts, tbf_json_result *result) {
    return apply(b, device, TBF_KIND_CLIENT_ATTR, now_ms, payload, opts, result);
}
