/* Text as it stands between the quotes of a JSON string: UTF-8 that may be broken, and escapes.
 *
 * Broken UTF-8 and lone surrogate escapes read as U+FFFD (MQTT spec 3.1, hostile input J6), one
 * per maximal subpart as Unicode 3.9 recommends and as Java's decoder does. */
#ifndef TBF_TEXT_H
#define TBF_TEXT_H

#include "tbf_base.h"

#define TBF_REPLACEMENT 0xFFFDu
#define TBF_UTF8_MAX 3u /* bytes written for one byte read, at most (U+FFFD for a broken one) */

/* Length of the sequence at p (n > 0): a whole one (*valid), or the part to replace by U+FFFD. */
size_t tbf_utf8_sequence(const uint8_t *p, size_t n, bool *valid);

/* Writes a code point (up to 4 bytes) and returns the byte after it. */
uint8_t *tbf_put_utf8(uint8_t *out, uint32_t cp);

/* Value of 4 hexadecimal digits; negative if one of them is none. */
int32_t tbf_hex4(const uint8_t *p);

/* True if the \u escape at p (already well-formed) is a surrogate without its other half;
 * *n: bytes of the escape, or of the pair. */
bool tbf_lone_surrogate(const uint8_t *p, const uint8_t *end, size_t *n);

/* Takes one code point off the front of [p, end) and returns the byte after it.  Escapes have been
 * checked by the lexer.  *repaired counts replacements. */
const uint8_t *tbf_text_next(const uint8_t *p, const uint8_t *end, uint32_t *cp,
                             uint32_t *repaired);

/* Decodes raw text to UTF-8 and returns the bytes written: at most raw.n if its UTF-8 is valid,
 * else TBF_UTF8_MAX * raw.n. */
size_t tbf_text_decode(uint8_t *out, tbf_span raw, bool valid_utf8, uint32_t *repaired);

/* True if the decoded text has more than `limit` UTF-16 units (what Java calls characters). */
bool tbf_text_longer(tbf_span raw, uint32_t limit);

/* Value 0-9 of a decimal digit of any script of the Basic Multilingual Plane (Java's
 * Character.isDigit of a char; Unicode category Nd), or -1. */
int tbf_digit_value(uint32_t cp);

#endif
