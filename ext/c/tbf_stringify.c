/* Values as strings: see tbf_stringify.h. */
#include "tbf_stringify.h"
#include "tbf_out.h"

typedef struct {
    const uint8_t *p, *end;
    uint8_t *out, *out_end;
} copier;

static tbf_status put(copier *c, const void *bytes, size_t n) {
    if ((size_t)(c->out_end - c->out) < n) {
        return TBF_ENOSPACE;
    }
    memcpy(c->out, bytes, n);
    c->out += n;
    return TBF_OK;
}

/* Copies what must come next. */
static tbf_status expect(copier *c, const char *literal, size_t n) {
    if ((size_t)(c->end - c->p) < n || memcmp(c->p, literal, n) != 0) {
        return TBF_EMALFORMED;
    }
    c->p += n;
    return put(c, literal, n);
}

static bool at(const copier *c, uint8_t byte) { return c->p < c->end && *c->p == byte; }

/* The byte after the string that begins at p, or NULL. */
static const uint8_t *after_string(const uint8_t *p, const uint8_t *end) {
    for (p++; p < end; p++) {
        if (*p == '"') {
            return p + 1;
        }
        if (*p == '\\' && ++p == end) {
            return NULL;
        }
    }
    return NULL;
}

/* The byte after the object or array that begins at p, or NULL. */
static const uint8_t *after_nested(const uint8_t *p, const uint8_t *end) {
    size_t depth = 0;
    while (p < end) {
        if (*p == '"') {
            p = after_string(p, end);
            if (p == NULL) {
                return NULL;
            }
            continue;
        }
        if (*p == '{' || *p == '[') {
            depth++;
        } else if ((*p == '}' || *p == ']') && --depth == 0) {
            return p + 1;
        }
        p++;
    }
    return NULL;
}

static tbf_status copy_string(copier *c) {
    const uint8_t *start = c->p, *after = at(c, '"') ? after_string(c->p, c->end) : NULL;
    if (after == NULL) {
        return TBF_EMALFORMED;
    }
    c->p = after;
    return put(c, start, (size_t)(after - start));
}

static tbf_status quote_nested(copier *c) {
    const uint8_t *after = after_nested(c->p, c->end);
    if (after == NULL) {
        return TBF_EMALFORMED;
    }
    tbf_span text = {c->p, (size_t)(after - c->p)};
    if ((size_t)(c->out_end - c->out) / 6 < text.n + 1) { /* tbf_out_string_bound, unwrapped */
        return TBF_ENOSPACE;
    }
    c->out += tbf_out_string(c->out, text);
    c->p = after;
    return TBF_OK;
}

static bool is_word(uint8_t byte) {
    uint8_t letter = byte | 0x20;
    return (letter >= 'a' && letter <= 'z') || (byte >= '0' && byte <= '9') || byte == '.' ||
           byte == '-' || byte == '+';
}

/* Numbers, true, false and null. */
static tbf_status quote_word(copier *c) {
    const uint8_t *start = c->p;
    while (c->p < c->end && is_word(*c->p)) {
        c->p++;
    }
    size_t n = (size_t)(c->p - start);
    if (n == 0 || n > TBF_OUT_NUMBER) {
        return TBF_EMALFORMED;
    }
    if (*start == 'n') {
        return put(c, start, n);
    }
    tbf_status status = put(c, "\"", 1);
    status = status == TBF_OK ? put(c, start, n) : status;
    return status == TBF_OK ? put(c, "\"", 1) : status;
}

static tbf_status copy_point(copier *c) {
    tbf_status status = expect(c, "{\"ts\":", 6);
    const uint8_t *start = c->p;
    while (c->p < c->end && (*c->p == '-' || (*c->p >= '0' && *c->p <= '9'))) {
        c->p++;
    }
    status = status == TBF_OK ? put(c, start, (size_t)(c->p - start)) : status;
    status = status == TBF_OK ? expect(c, ",\"value\":", 9) : status;
    if (status != TBF_OK) {
        return status;
    }
    if (at(c, '"')) {
        status = copy_string(c);
    } else if (at(c, '{') || at(c, '[')) {
        status = quote_nested(c);
    } else {
        status = quote_word(c);
    }
    return status == TBF_OK ? expect(c, "}", 1) : status;
}

/* Items between commas up to the closing byte, which is left for the caller. */
static tbf_status copy_items(copier *c, char close, tbf_status (*item)(copier *)) {
    tbf_status status = TBF_OK;
    for (bool first = true; status == TBF_OK && !at(c, (uint8_t)close); first = false) {
        status = first ? TBF_OK : expect(c, ",", 1);
        status = status == TBF_OK ? item(c) : status;
    }
    return status == TBF_OK ? expect(c, &close, 1) : status;
}

static tbf_status copy_series(copier *c) {
    tbf_status status = copy_string(c);
    status = status == TBF_OK ? expect(c, ":[", 2) : status;
    return status == TBF_OK ? copy_items(c, ']', copy_point) : status;
}

tbf_status tbf_stringify(tbf_span text, uint8_t *out, size_t room, size_t *written) {
    copier c = {text.p, text.p + text.n, out, out + room};
    tbf_status status = expect(&c, "{", 1);
    status = status == TBF_OK ? copy_items(&c, '}', copy_series) : status;
    *written = (size_t)(c.out - out);
    return status == TBF_OK && c.p != c.end ? TBF_EMALFORMED : status;
}
