/* See tbf_out.h. */
#include "tbf_out.h"

size_t tbf_out_string(uint8_t *out, tbf_span utf8) {
    static const char HEX[] = "0123456789abcdef";
    uint8_t *p = out;
    *p++ = '"';
    for (size_t i = 0; i < utf8.n; i++) {
        uint8_t c = utf8.p[i];
        if (c == '"' || c == '\\') {
            *p++ = '\\';
            *p++ = c;
        } else if (c < 0x20) {
            static const char SHORT[] = "btn\0fr"; /* 8..13; \v has no short form */
            char short_form = c >= 8 && c <= 13 ? SHORT[c - 8] : 0;
            *p++ = '\\';
            if (short_form != 0) {
                *p++ = (uint8_t)short_form;
            } else {
                memcpy(p, "u00", 3);
                p[3] = (uint8_t)HEX[c >> 4];
                p[4] = (uint8_t)HEX[c & 15];
                p += 5;
            }
        } else {
            *p++ = c;
        }
    }
    *p++ = '"';
    return (size_t)(p - out);
}

size_t tbf_out_int64(uint8_t *out, int64_t v) { return tbf_decimal_text(out, v, 0); }

size_t tbf_out_base64(uint8_t *out, tbf_span bytes) {
    static const char ALPHABET[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t *p = out;
    *p++ = '"';
    for (size_t i = 0; i < bytes.n; i += 3) {
        size_t left = bytes.n - i;
        uint32_t v = (uint32_t)bytes.p[i] << 16;
        v |= left > 1 ? (uint32_t)bytes.p[i + 1] << 8 : 0;
        v |= left > 2 ? bytes.p[i + 2] : 0;
        *p++ = (uint8_t)ALPHABET[v >> 18];
        *p++ = (uint8_t)ALPHABET[(v >> 12) & 63];
        *p++ = left > 1 ? (uint8_t)ALPHABET[(v >> 6) & 63] : '=';
        *p++ = left > 2 ? (uint8_t)ALPHABET[v & 63] : '=';
    }
    *p++ = '"';
    return (size_t)(p - out);
}
