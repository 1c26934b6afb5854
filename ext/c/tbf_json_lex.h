/* What the strict and the lenient JSON lexer share: tokens and string bodies. */
#ifndef TBF_JSON_LEX_H
#define TBF_JSON_LEX_H

#include "tbf_base.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

typedef enum {
    TBF_TOK_ERROR,
    TBF_TOK_END, /* the closing bracket in place of a member or element */
    TBF_TOK_OBJECT,
    TBF_TOK_ARRAY,
    TBF_TOK_STRING,
    TBF_TOK_NUMBER,
    TBF_TOK_TRUE,
    TBF_TOK_FALSE,
    TBF_TOK_NULL
} tbf_tok_kind;

/* What a string body contains besides plain ASCII. */
#define TBF_TEXT_ESCAPE 1u
#define TBF_TEXT_WIDE 2u   /* non-ASCII */
#define TBF_TEXT_BROKEN 4u /* bytes that are not UTF-8 */
#define TBF_TEXT_LONE 8u   /* an escaped surrogate without its other half */
#define TBF_TEXT_MAKE_STRICT                                                                       \
    16u /* what a strict string cannot hold like this: raw control                                 \
         * characters, bare double quotes, lenient escapes */

typedef struct {
    tbf_span text;  /* STRING: between the quotes; NUMBER: all of it */
    uint32_t flags; /* STRING: TBF_TEXT_* */
    /* NUMBER of the strict lexer, when it has no exponent and at most 18 digits: */
    bool small;
    bool negative;
    uint32_t decimals;
    uint64_t mantissa;
} tbf_tok;

typedef struct {
    const uint8_t *p, *end; /* p also says where an error is */
    bool spaced;            /* the strict lexer has skipped white space */
} tbf_lex;

/* Takes what interrupts plain text at p: an escape, a control character, or non-ASCII text.
 * NULL: not allowed. */
const uint8_t *tbf_lex_odd(const uint8_t *p, const uint8_t *end, bool lenient, uint32_t *flags);

/* First byte in [p, end) that is the quote, a backslash, a control character or non-ASCII. */
static inline const uint8_t *tbf_skip_plain(const uint8_t *p, const uint8_t *end, uint8_t quote) {
#ifdef __SSE2__
    const __m128i quotes = _mm_set1_epi8((char)quote), slashes = _mm_set1_epi8('\\'),
                  spaces = _mm_set1_epi8(' ');
    while ((size_t)(end - p) >= 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
        /* The comparison is signed: bytes from 0x80 count as below the space too. */
        __m128i stop =
            _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(v, quotes), _mm_cmpeq_epi8(v, slashes)),
                         _mm_cmplt_epi8(v, spaces));
        unsigned mask = (unsigned)_mm_movemask_epi8(stop);
        if (mask != 0) {
            return p + __builtin_ctz(mask);
        }
        p += 16;
    }
#endif
    while (p < end && *p != quote && *p != '\\' && *p >= 0x20 && *p < 0x80) {
        p++;
    }
    return p;
}

/* Reads a string whose opening quote is consumed, up to and including the closing one. */
static inline tbf_tok_kind tbf_lex_string(tbf_lex *x, tbf_tok *t, uint8_t quote, bool lenient) {
    const uint8_t *start = x->p, *p = start;
    t->flags = 0;
    for (;;) {
        p = tbf_skip_plain(p, x->end, quote);
        if (TBF_UNLIKELY(p == x->end)) {
            return TBF_TOK_ERROR;
        }
        if (TBF_LIKELY(*p == quote)) {
            break;
        }
        const uint8_t *next = tbf_lex_odd(p, x->end, lenient, &t->flags);
        if (next == NULL) {
            x->p = p;
            return TBF_TOK_ERROR;
        }
        p = next;
    }
    t->text = (tbf_span){start, (size_t)(p - start)};
    x->p = p + 1;
    if (quote != '"' && memchr(start, '"', t->text.n) != NULL) {
        t->flags |= TBF_TEXT_MAKE_STRICT;
    }
    return TBF_TOK_STRING;
}

#endif
