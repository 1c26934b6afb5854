/* Rewrites nested JSON of any dialect as compact strict text, in three linear passes.
 *
 *   measure  checks the grammar, counts members, and bounds the length of the output;
 *   index    notes every member, and joins members of the same name: the value of the last one at
 *            the place of the first one (MQTT spec 3.1, duplicate names);
 *   emit     writes; where a value stands elsewhere, it goes there and comes back.
 *
 * The index lives in scratch memory at the end of the batch's buffer.  Every pass is a loop with
 * one stack entry per level: peer input never drives recursion. */
#include "tbf_json_nested.h"
#include "tbf_json_lenient.h"
#include "tbf_text.h"

#define NONE UINT32_MAX

typedef struct {
    uint32_t name, value, end; /* offsets of name, value, and what follows the value */
    uint32_t after;            /* index of the first member that is not inside the value */
    uint32_t last;             /* index of the member whose value counts; NONE: not the first */
    uint32_t object;           /* which object it belongs to */
} member;

typedef struct {
    uint32_t hash, number; /* index of the first member of that name, plus one; 0 = free */
} slot;

typedef struct {
    bool is_object;
    bool written;     /* something stands after the opening bracket of the output */
    uint32_t count;   /* members or elements read */
    uint32_t object;  /* serial number of this object */
    uint32_t current; /* index of the member being read */
    /* emit: where to go on after a value that stood elsewhere; NULL = right here */
    const uint8_t *back;
    uint32_t back_member;
} level;

typedef enum { EV_ERROR, EV_NAME, EV_SCALAR, EV_OPEN, EV_CLOSE } event;

/* Position in the nested value.  top = 0: it is finished. */
typedef struct {
    tbf_lex x;
    level levels[TBF_JSON_DEPTH_CAP];
    uint32_t top;
    bool want_value; /* a name has been read */
    tbf_tok tok;
    tbf_tok_kind kind; /* of the last scalar or opening bracket */
    bool in_object;    /* after EV_CLOSE: what was closed */
} cursor;

static void push(cursor *c, tbf_tok_kind kind) {
    c->levels[c->top++] = (level){.is_object = kind == TBF_TOK_OBJECT};
}

/* `outer` is the bracket already consumed at x->p. */
static void start(cursor *c, const tbf_lex *x, tbf_tok_kind outer) {
    c->x = *x;
    c->top = 0;
    c->want_value = false;
    push(c, outer);
}

/* Next piece of the value.  EV_OPEN does not descend by itself: see push. */
static event next(cursor *c) {
    level *l = &c->levels[c->top - 1];
    if (l->is_object && !c->want_value) {
        c->kind = tbf_lenient_name(&c->x, l->count == 0, &c->tok);
        if (c->kind == TBF_TOK_STRING) {
            l->count++;
            c->want_value = true;
            return EV_NAME;
        }
    } else if (l->is_object) {
        c->kind = tbf_lenient_value(&c->x, &c->tok);
        c->want_value = false;
    } else {
        c->kind = tbf_lenient_element(&c->x, l->count == 0, &c->tok);
        l->count++;
    }
    switch (c->kind) {
    case TBF_TOK_ERROR:
        return EV_ERROR;
    case TBF_TOK_END:
        c->in_object = l->is_object;
        c->top--;
        return EV_CLOSE;
    case TBF_TOK_OBJECT:
    case TBF_TOK_ARRAY:
        return EV_OPEN;
    default:
        return EV_SCALAR;
    }
}

/* ---- text ---- */

/* Writes raw text as a strict JSON string; returns its length.  out NULL: only measures. */
static size_t emit_string(uint8_t *out, const tbf_tok *t, uint32_t *repaired) {
    static const uint8_t HEX[] = "0123456789abcdef";
    const uint8_t *p = t->text.p, *end = p + t->text.n;
    const uint32_t odd = TBF_TEXT_BROKEN | TBF_TEXT_LONE | TBF_TEXT_MAKE_STRICT;
    if (out == NULL) { /* bound: a control character takes 6, any other byte at most 3 */
        return 2 + t->text.n * ((t->flags & odd) == 0               ? 1
                                : (t->flags & TBF_TEXT_MAKE_STRICT) ? 6
                                                                    : 3);
    }
    uint8_t *at = out;
    *at++ = '"';
    if ((t->flags & odd) == 0) {
        memcpy(at, p, t->text.n);
        at += t->text.n;
        p = end;
    }
    while (p < end) {
        const uint8_t *from = p;
        uint32_t cp, before = *repaired;
        p = tbf_text_next(p, end, &cp, repaired);
        if (*repaired == before && from[0] == '\\' && from[1] != '\'' && from[1] != '\n') {
            memcpy(at, from, (size_t)(p - from)); /* an escape stays as received */
            at += p - from;
        } else if (cp == '"' || cp == '\\') {
            *at++ = '\\';
            *at++ = (uint8_t)cp;
        } else if (cp < 0x20) {
            memcpy(at, "\\u00", 4);
            at[4] = HEX[cp >> 4];
            at[5] = HEX[cp & 15];
            at += 6;
        } else {
            at = tbf_put_utf8(at, cp);
        }
    }
    *at++ = '"';
    return (size_t)(at - out);
}

static size_t emit_text(uint8_t *out, const char *text, size_t n) {
    if (out != NULL) {
        memcpy(out, text, n);
    }
    return n;
}

static size_t emit_scalar(uint8_t *out, tbf_tok_kind kind, const tbf_tok *t, uint32_t *repaired) {
    switch (kind) {
    case TBF_TOK_STRING:
        return emit_string(out, t, repaired);
    case TBF_TOK_NUMBER:
        return emit_text(out, (const char *)t->text.p, t->text.n);
    case TBF_TOK_TRUE:
        return emit_text(out, "true", 4);
    case TBF_TOK_FALSE:
        return emit_text(out, "false", 5);
    default:
        return emit_text(out, "null", 4);
    }
}

/* ---- measure ---- */

typedef struct {
    uint32_t members;
    size_t bound; /* of the output, bytes */
    const uint8_t *end;
} size;

static tbf_status measure(tbf_json_walk *w, cursor *c, tbf_tok_kind outer, size *s) {
    uint32_t ignored = 0;
    *s = (size){0, 2, NULL};
    if (w->depth >= w->max_depth) {
        return tbf_json_refuse(w, "nested too deeply");
    }
    start(c, &w->x, outer);
    while (c->top > 0) {
        event e = next(c);
        w->x.p = c->x.p;
        switch (e) {
        case EV_ERROR:
            return TBF_EMALFORMED;
        case EV_NAME:
            if (c->levels[c->top - 1].count > w->opts->max_keys) {
                return tbf_json_refuse(w, "object has too many members");
            }
            s->members++;
            s->bound += emit_string(NULL, &c->tok, &ignored) + 1;
            break;
        case EV_SCALAR:
            s->bound += emit_scalar(NULL, c->kind, &c->tok, &ignored) + 1;
            break;
        case EV_OPEN:
            if (c->top >= w->max_depth - w->depth) {
                return tbf_json_refuse(w, "nested too deeply");
            }
            push(c, c->kind);
            s->bound += 3;
            break;
        case EV_CLOSE:
            break;
        }
    }
    s->end = c->x.p;
    return TBF_OK;
}

tbf_status tbf_nested_skip(tbf_json_walk *w, tbf_tok_kind kind) {
    cursor c;
    size s;
    return measure(w, &c, kind, &s);
}

/* ---- index ---- */

typedef struct {
    const uint8_t *base; /* of all offsets */
    member *members;
    uint32_t count;
    slot *slots;
    uint32_t mask;
} names;

static uint32_t hash_name(tbf_span raw, uint32_t object, const uint64_t seed[2]) {
    const uint8_t *p = raw.p, *end = raw.p + raw.n;
    uint64_t h = seed[0] ^ object;
    uint32_t cp, ignored = 0;
    while (p < end) {
        p = tbf_text_next(p, end, &cp, &ignored);
        h = tbf_fold(h ^ cp, seed[1] | 1);
    }
    return (uint32_t)(h ^ h >> 32);
}

static bool same_text(tbf_span a, tbf_span b) {
    const uint8_t *p = a.p, *p_end = a.p + a.n, *q = b.p, *q_end = b.p + b.n;
    uint32_t left, right, ignored = 0;
    while (p < p_end && q < q_end) {
        p = tbf_text_next(p, p_end, &left, &ignored);
        q = tbf_text_next(q, q_end, &right, &ignored);
        if (left != right) {
            return false;
        }
    }
    return p == p_end && q == q_end;
}

static tbf_span name_at(const names *n, const tbf_lex *x, uint32_t offset) {
    tbf_lex there = {.p = n->base + offset, .end = x->end};
    tbf_tok t;
    tbf_lenient_name(&there, true, &t);
    return t.text;
}

/* Enters the member whose name has just been read at `offset`. */
static void add_member(names *n, cursor *c, uint32_t offset, const uint64_t seed[2]) {
    level *l = &c->levels[c->top - 1];
    uint32_t index = n->count++;
    member *m = &n->members[index];
    *m = (member){
        .name = offset, .value = (uint32_t)(c->x.p - n->base), .last = index, .object = l->object};
    l->current = index;
    uint32_t hash = hash_name(c->tok.text, l->object, seed);
    uint32_t at = hash & n->mask;
    for (; n->slots[at].number != 0; at = (at + 1) & n->mask) {
        member *other = &n->members[n->slots[at].number - 1];
        if (n->slots[at].hash == hash && other->object == l->object &&
            same_text(name_at(n, &c->x, other->name), c->tok.text)) {
            other->last = index;
            m->last = NONE;
            return;
        }
    }
    n->slots[at] = (slot){hash, index + 1};
}

/* The value of the current member of the level on top, if that is an object, is complete. */
static void end_value(names *n, const cursor *c) {
    if (c->top > 0 && c->levels[c->top - 1].is_object) {
        member *m = &n->members[c->levels[c->top - 1].current];
        m->end = (uint32_t)(c->x.p - n->base);
        m->after = n->count;
    }
}

static void index_members(tbf_json_walk *w, cursor *c, const tbf_lex *x, tbf_tok_kind outer,
                          names *n) {
    uint32_t objects = 0;
    start(c, x, outer);
    while (c->top > 0) {
        event e = next(c);
        if (e == EV_NAME) {
            /* From its quote on, if it has one, so that it can be lexed again. */
            const uint8_t *name = c->tok.text.p;
            name -= name[-1] == '"' || name[-1] == '\'';
            add_member(n, c, (uint32_t)(name - n->base), w->b->keys->seed);
        } else if (e == EV_OPEN) {
            push(c, c->kind);
            c->levels[c->top - 1].object = ++objects;
        } else {
            end_value(n, c);
        }
    }
}

/* ---- emit ---- */

static bool is_null_member(const names *n, const cursor *c, uint32_t index) {
    tbf_lex there = {.p = n->base + n->members[index].value, .end = c->x.end};
    tbf_tok t;
    return tbf_lenient_value(&there, &t) == TBF_TOK_NULL;
}

/* Goes on after a value: at the next source byte, or back from the place where it stood. */
static void leave_value(cursor *c, uint32_t *index) {
    if (c->top > 0 && c->levels[c->top - 1].back != NULL) {
        level *l = &c->levels[c->top - 1];
        c->x.p = l->back;
        *index = l->back_member;
        l->back = NULL;
    }
}

static uint8_t *comma(uint8_t *at, level *l) {
    if (l->written) {
        *at++ = ',';
    }
    l->written = true;
    return at;
}

/* Handles the name just read, member number *index: writes it and goes to its value, or passes
 * over the member. */
static uint8_t *emit_name(uint8_t *at, cursor *c, const names *n, uint32_t *index,
                          uint32_t *repaired) {
    const member *m = &n->members[*index];
    level *l = &c->levels[c->top - 1];
    if (m->last == NONE || is_null_member(n, c, m->last)) {
        c->x.p = n->base + m->end;
        c->want_value = false;
        *index = m->after;
        return at;
    }
    at = comma(at, l);
    at += emit_string(at, &c->tok, repaired);
    *at++ = ':';
    if (m->last == *index) {
        ++*index;
        return at;
    }
    l->back = n->base + m->end;
    l->back_member = m->after;
    c->x.p = n->base + n->members[m->last].value;
    *index = m->last + 1;
    return at;
}

static size_t emit(tbf_json_walk *w, cursor *c, const tbf_lex *x, tbf_tok_kind outer,
                   const names *n, uint8_t *out) {
    uint8_t *at = out;
    uint32_t index = 0;
    *at++ = outer == TBF_TOK_OBJECT ? '{' : '[';
    start(c, x, outer);
    while (c->top > 0) {
        event e = next(c);
        if (e == EV_NAME) {
            at = emit_name(at, c, n, &index, &w->bad_utf8);
            continue;
        }
        if (e == EV_CLOSE) {
            *at++ = c->in_object ? '}' : ']';
            leave_value(c, &index);
            continue;
        }
        level *l = &c->levels[c->top - 1];
        if (!l->is_object) {
            at = comma(at, l);
        }
        if (e == EV_OPEN) {
            *at++ = c->kind == TBF_TOK_OBJECT ? '{' : '[';
            push(c, c->kind);
        } else {
            at += emit_scalar(at, c->kind, &c->tok, &w->bad_utf8);
            leave_value(c, &index);
        }
    }
    return (size_t)(at - out);
}

/* Scratch memory for `members` entries; false if there is not enough. */
static bool make_index(tbf_batch *b, uint32_t members, names *n) {
    size_t slots = 4;
    while (slots - slots / 4 < members) {
        slots *= 2;
    }
    size_t bytes = slots * sizeof(slot) + members * sizeof(member);
    uint8_t *p = tbf_json_scratch(b, bytes + sizeof(member));
    if (p == NULL) {
        return false;
    }
    p += (8 - (uintptr_t)p % 8) % 8; /* the spare entry pays for this */
    memset(p, 0, slots * sizeof(slot));
    n->slots = (slot *)(void *)p;
    n->mask = (uint32_t)(slots - 1);
    n->members = (member *)(void *)(p + slots * sizeof(slot));
    n->count = 0;
    return true;
}

tbf_status tbf_nested_put(tbf_json_walk *w, tbf_span key, tbf_tok_kind kind) {
    const tbf_lex from = w->x;
    size_t cap = w->b->cap;
    cursor c;
    size s;
    tbf_status status = measure(w, &c, kind, &s);
    if (status != TBF_OK) {
        return status;
    }
    names n = {.base = from.p};
    if (s.bound > UINT32_MAX || !make_index(w->b, s.members, &n)) {
        return TBF_ENOSPACE;
    }
    uint8_t *at;
    status = tbf_blob_open(w->b, key, TBF_JSON, s.bound, &at);
    if (status == TBF_OK) {
        index_members(w, &c, &from, kind, &n);
        tbf_blob_close(w->b, emit(w, &c, &from, kind, &n, at));
        w->x.p = s.end;
    }
    w->b->cap = cap;
    return status;
}
