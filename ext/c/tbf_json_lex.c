/* The uncommon parts of a JSON string. */
#include "tbf_json_lex.h"
#include "tbf_text.h"

static const uint8_t *escape(const uint8_t *p, const uint8_t *end, bool lenient, uint32_t *flags) {
    if ((size_t)(end - p) < 2) {
        return NULL;
    }
    *flags |= TBF_TEXT_ESCAPE;
    switch (p[1]) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        return p + 2;
    case '\'':
    case '\n':
        *flags |= TBF_TEXT_MAKE_STRICT;
        return lenient ? p + 2 : NULL;
    case 'u':
        break;
    default:
        return NULL;
    }
    if ((size_t)(end - p) < 6 || tbf_hex4(p + 2) < 0) {
        return NULL;
    }
    size_t n;
    if (tbf_lone_surrogate(p, end, &n)) {
        *flags |= TBF_TEXT_LONE;
    }
    return p + n;
}

const uint8_t *tbf_lex_odd(const uint8_t *p, const uint8_t *end, bool lenient, uint32_t *flags) {
    if (*p == '\\') {
        return escape(p, end, lenient, flags);
    }
    if (*p < 0x80) { /* a control character, or in the lenient dialect the other kind of quote */
        *flags |= TBF_TEXT_MAKE_STRICT;
        return lenient ? p + 1 : NULL;
    }
    *flags |= TBF_TEXT_WIDE;
    do {
        bool valid;
        p += tbf_utf8_sequence(p, (size_t)(end - p), &valid);
        *flags |= valid ? 0 : TBF_TEXT_BROKEN;
    } while (p < end && *p >= 0x80);
    return p;
}
