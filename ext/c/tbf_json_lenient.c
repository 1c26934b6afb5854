/* Lenient JSON lexer, and the payload walk over it; dialect in tbf_json_lenient.h. */
#include "tbf_json_lenient.h"
#include "tbf_json_nested.h"
#include "tbf_text.h"

/* Ends an unquoted word. */
static bool ends_word(uint8_t c) {
    switch (c) {
    case '/':
    case '\\':
    case ';':
    case '#':
    case '=':
    case '{':
    case '}':
    case '[':
    case ']':
    case ':':
    case ',':
    case ' ':
    case '\t':
    case '\f':
    case '\r':
    case '\n':
        return true;
    default:
        return false;
    }
}

static bool skip_block_comment(tbf_lex *x) {
    const uint8_t *p = x->p;
    for (; (size_t)(x->end - p) >= 2; p++) {
        if (p[0] == '*' && p[1] == '/') {
            x->p = p + 2;
            return true;
        }
    }
    return false;
}

/* Skips white space and comments.  False at the end of the text or in an open comment. */
static bool skip_blank(tbf_lex *x) {
    while (x->p < x->end) {
        uint8_t c = *x->p;
        if (c == ' ' || c == '\n' || c == '\r' || c == '\t') {
            x->p++;
            continue;
        }
        size_t left = (size_t)(x->end - x->p);
        if (c == '/' && left >= 2 && x->p[1] == '*') {
            x->p += 2;
            if (!skip_block_comment(x)) {
                return false;
            }
        } else if (c == '#' || (c == '/' && left >= 2 && x->p[1] == '/')) {
            while (x->p < x->end && *x->p != '\n' && *x->p != '\r') {
                x->p++;
            }
        } else {
            return true;
        }
    }
    return false;
}

/* Reads an unquoted word; ERROR if there is none. */
static tbf_tok_kind read_word(tbf_lex *x, tbf_tok *t) {
    const uint8_t *start = x->p;
    t->flags = 0;
    while (x->p < x->end && !ends_word(*x->p)) {
        if (*x->p >= 0x80) {
            x->p = tbf_lex_odd(x->p, x->end, true, &t->flags);
        } else {
            t->flags |= *x->p < 0x20 || *x->p == '"' ? TBF_TEXT_MAKE_STRICT : 0;
            x->p++;
        }
    }
    t->text = (tbf_span){start, (size_t)(x->p - start)};
    return t->text.n > 0 ? TBF_TOK_STRING : TBF_TOK_ERROR;
}

static bool is_keyword(tbf_span word, const char *keyword, size_t n) {
    if (word.n != n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if ((word.p[i] | 0x20) != (uint8_t)keyword[i]) {
            return false;
        }
    }
    return true;
}

static const uint8_t *skip_digits(const uint8_t *p, const uint8_t *end) {
    while (p < end && *p >= '0' && *p <= '9') {
        p++;
    }
    return p;
}

/* RFC 8259 section 6. */
static bool is_number(tbf_span word) {
    const uint8_t *p = word.p, *end = word.p + word.n;
    p += p < end && *p == '-';
    const uint8_t *digits = p;
    p = skip_digits(p, end);
    if (p == digits || (*digits == '0' && p - digits > 1)) {
        return false;
    }
    if (p < end && *p == '.') {
        digits = ++p;
        p = skip_digits(p, end);
        if (p == digits) {
            return false;
        }
    }
    if (p < end && (*p | 0x20) == 'e') {
        p++;
        p += p < end && (*p == '+' || *p == '-');
        digits = p;
        p = skip_digits(p, end);
        if (p == digits) {
            return false;
        }
    }
    return p == end;
}

bool tbf_lenient_start(tbf_lex *x) {
    static const uint8_t MARK[] = {0xEF, 0xBB, 0xBF}, GUARD[] = {')', ']', '}', '\'', '\n'};
    if ((size_t)(x->end - x->p) >= sizeof MARK && memcmp(x->p, MARK, sizeof MARK) == 0) {
        x->p += sizeof MARK;
    }
    if (!skip_blank(x)) {
        return false;
    }
    if ((size_t)(x->end - x->p) >= sizeof GUARD && memcmp(x->p, GUARD, sizeof GUARD) == 0) {
        x->p += sizeof GUARD;
    }
    return true;
}

bool tbf_lenient_at_end(tbf_lex *x) {
    while (x->p < x->end && (*x->p == ' ' || *x->p == '\n' || *x->p == '\r' || *x->p == '\t')) {
        x->p++;
    }
    return x->p == x->end;
}

tbf_tok_kind tbf_lenient_value(tbf_lex *x, tbf_tok *t) {
    if (!skip_blank(x)) {
        return TBF_TOK_ERROR;
    }
    t->small = false;
    switch (*x->p) {
    case '{':
        x->p++;
        return TBF_TOK_OBJECT;
    case '[':
        x->p++;
        return TBF_TOK_ARRAY;
    case '"':
        x->p++;
        return tbf_lex_string(x, t, '"', true);
    case '\'':
        x->p++;
        return tbf_lex_string(x, t, '\'', true);
    default:
        break;
    }
    if (read_word(x, t) == TBF_TOK_ERROR) {
        return TBF_TOK_ERROR;
    }
    if (is_keyword(t->text, "true", 4)) {
        return TBF_TOK_TRUE;
    }
    if (is_keyword(t->text, "false", 5)) {
        return TBF_TOK_FALSE;
    }
    if (is_keyword(t->text, "null", 4)) {
        return TBF_TOK_NULL;
    }
    return is_number(t->text) ? TBF_TOK_NUMBER : TBF_TOK_STRING;
}

static bool read_colon(tbf_lex *x) {
    if (!skip_blank(x)) {
        return false;
    }
    uint8_t c = *x->p;
    if (c != ':' && c != '=') {
        return false;
    }
    x->p++;
    if (c == '=' && x->p < x->end && *x->p == '>') {
        x->p++;
    }
    return true;
}

tbf_tok_kind tbf_lenient_name(tbf_lex *x, bool first, tbf_tok *t) {
    if (!skip_blank(x)) {
        return TBF_TOK_ERROR;
    }
    if (*x->p == '}') {
        x->p++;
        return TBF_TOK_END;
    }
    if (!first) {
        if (*x->p != ',' && *x->p != ';') {
            return TBF_TOK_ERROR;
        }
        x->p++;
        if (!skip_blank(x)) {
            return TBF_TOK_ERROR;
        }
    }
    tbf_tok_kind kind;
    if (*x->p == '"' || *x->p == '\'') {
        uint8_t quote = *x->p++;
        kind = tbf_lex_string(x, t, quote, true);
    } else {
        kind = read_word(x, t);
    }
    return kind == TBF_TOK_STRING && read_colon(x) ? kind : TBF_TOK_ERROR;
}

tbf_tok_kind tbf_lenient_element(tbf_lex *x, bool first, tbf_tok *t) {
    if (!skip_blank(x)) {
        return TBF_TOK_ERROR;
    }
    if (*x->p == ']') {
        x->p++;
        return TBF_TOK_END;
    }
    if (!first) {
        if (*x->p != ',' && *x->p != ';') {
            return TBF_TOK_ERROR;
        }
        x->p++;
        if (!skip_blank(x)) {
            return TBF_TOK_ERROR;
        }
    }
    if (*x->p == ',' || *x->p == ';' || *x->p == ']') {
        return TBF_TOK_NULL; /* the separator or bracket stays for the next call */
    }
    return tbf_lenient_value(x, t);
}

#define WALK(name) lenient_##name
#define LEX(name) tbf_lenient_##name
#include "tbf_json_walk.h"

static bool lenient_may_be_timed(const tbf_lex *x) {
    (void)x;
    return true;
}

static tbf_status lenient_nested(tbf_json_walk *w, tbf_span key, tbf_tok_kind kind) {
    return tbf_nested_put(w, key, kind);
}

static tbf_status lenient_skip(tbf_json_walk *w, tbf_tok_kind kind) {
    return tbf_nested_skip(w, kind);
}

tbf_status tbf_lenient_document(tbf_json_walk *w) { return lenient_document(w); }
