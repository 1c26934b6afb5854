#include "tbf_proxy.h"

static const uint8_t SIGNATURE[12] = {0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D,
                                      0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A};
static const uint8_t V4_PREFIX[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

/* --- version 2 ------------------------------------------------------------------------------ */

enum {
    V2_HEAD = 16, /* signature, command, family, length */
    V2_LOCAL = 0x20,
    V2_PROXY = 0x21,
    V2_TCP4 = 0x11,
    V2_TCP6 = 0x21,
};

static tbf_status read_binary(const uint8_t *p, size_t n, tbf_proxy *out) {
    if (n < V2_HEAD) {
        return n > 12 && p[12] != V2_LOCAL && p[12] != V2_PROXY ? TBF_EMALFORMED : TBF_MORE;
    }
    size_t length = (size_t)p[14] << 8 | p[15];
    if (p[12] != V2_LOCAL && p[12] != V2_PROXY) {
        return TBF_EMALFORMED;
    }
    if (length > TBF_PROXY_V2_MAX - V2_HEAD) {
        return TBF_ETOOBIG;
    }
    bool v4 = p[12] == V2_PROXY && p[13] == V2_TCP4;
    bool v6 = p[12] == V2_PROXY && p[13] == V2_TCP6;
    if ((v4 && length < 12) || (v6 && length < 36)) {
        return TBF_EMALFORMED;
    }
    if (n - V2_HEAD < length) {
        return TBF_MORE;
    }
    out->total = V2_HEAD + length;
    const uint8_t *body = p + V2_HEAD;
    if (v4) {
        memcpy(out->address, V4_PREFIX, 12);
        memcpy(out->address + 12, body, 4);
        out->port = (uint16_t)(body[8] << 8 | body[9]);
    } else if (v6) {
        memcpy(out->address, body, 16);
        out->port = (uint16_t)(body[32] << 8 | body[33]);
    }
    out->has_source = v4 || v6;
    return TBF_OK;
}

/* --- version 1 ------------------------------------------------------------------------------ */

/* Takes one word and the blank behind it (the last word ends at the line's end). */
static bool word(tbf_span *line, tbf_span *out, bool last) {
    size_t n = 0;
    while (n < line->n && line->p[n] != ' ') {
        n++;
    }
    if (n == 0 || last != (n == line->n)) {
        return false;
    }
    out->p = line->p;
    out->n = n;
    line->p += n + !last;
    line->n -= n + !last;
    return true;
}

/* A decimal number without sign or leading zero, at most `max`. */
static bool decimal(const uint8_t *p, size_t n, unsigned max, unsigned *out) {
    if (n == 0 || n > 5 || (n > 1 && p[0] == '0')) {
        return false;
    }
    unsigned v = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9') {
            return false;
        }
        v = v * 10 + (unsigned)(p[i] - '0');
    }
    *out = v;
    return v <= max;
}

static bool address_v4(tbf_span text, uint8_t out[4]) {
    for (unsigned i = 0; i < 4; i++) {
        size_t n = 0;
        while (n < text.n && text.p[n] != '.') {
            n++;
        }
        unsigned v;
        if ((i == 3) != (n == text.n) || !decimal(text.p, n, 255, &v)) {
            return false;
        }
        out[i] = (uint8_t)v;
        text.p += n + (i < 3);
        text.n -= n + (i < 3);
    }
    return true;
}

static int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* RFC 4291 2.2: eight groups of hexadecimal digits, "::" once for groups of zeroes, the last two
 * perhaps as an IPv4 address. */
static bool address_v6(tbf_span text, uint8_t out[16]) {
    size_t filled = 0, gap = 17, at = 0; /* bytes; where "::" stood */
    memset(out, 0, 16);
    if (text.n >= 2 && text.p[0] == ':' && text.p[1] == ':') {
        gap = 0;
        at = 2;
    }
    while (at < text.n) {
        if (filled == 16) {
            return false;
        }
        unsigned v = 0;
        size_t digits = 0;
        while (digits < text.n - at && digits < 4 && hex_digit(text.p[at + digits]) >= 0) {
            v = v << 4 | (unsigned)hex_digit(text.p[at + digits]);
            digits++;
        }
        if (digits < text.n - at && text.p[at + digits] == '.') {
            tbf_span rest = {text.p + at, text.n - at};
            if (filled > 12 || !address_v4(rest, out + filled)) {
                return false;
            }
            filled += 4;
            break;
        }
        if (digits == 0) {
            return false;
        }
        out[filled++] = (uint8_t)(v >> 8);
        out[filled++] = (uint8_t)v;
        at += digits;
        if (at == text.n) {
            break;
        }
        if (text.p[at] != ':' || at + 1 == text.n) {
            return false;
        }
        at++;
        if (text.p[at] == ':') {
            if (gap != 17) {
                return false;
            }
            gap = filled;
            at++;
        }
    }
    if (gap == 17) {
        return filled == 16;
    }
    if (filled > 14) {
        return false;
    }
    memmove(out + 16 - (filled - gap), out + gap, filled - gap);
    memset(out + gap, 0, 16 - filled);
    return true;
}

static bool has_word(tbf_span span, const char *text) {
    return span.n == strlen(text) && memcmp(span.p, text, span.n) == 0;
}

static tbf_status read_line(tbf_span line, tbf_proxy *out) {
    tbf_span family, source, target, from, to;
    unsigned port, ignored;
    uint8_t address[16];
    if (!word(&line, &family, line.n == 7)) {
        return TBF_EMALFORMED;
    }
    if (has_word(family, "UNKNOWN")) {
        return TBF_OK; /* whatever else stands there is to be ignored */
    }
    if (!word(&line, &source, false) || !word(&line, &target, false) ||
        !word(&line, &from, false) || !word(&line, &to, true) ||
        !decimal(from.p, from.n, 65535, &port) || !decimal(to.p, to.n, 65535, &ignored)) {
        return TBF_EMALFORMED;
    }
    if (has_word(family, "TCP4")) {
        memcpy(out->address, V4_PREFIX, 12);
        if (!address_v4(source, out->address + 12) || !address_v4(target, address)) {
            return TBF_EMALFORMED;
        }
    } else if (!has_word(family, "TCP6") || !address_v6(source, out->address) ||
               !address_v6(target, address)) {
        return TBF_EMALFORMED;
    }
    out->port = (uint16_t)port;
    out->has_source = true;
    return TBF_OK;
}

static tbf_status read_text(const uint8_t *p, size_t n, tbf_proxy *out) {
    size_t end = 0, most = n < TBF_PROXY_V1_MAX ? n : TBF_PROXY_V1_MAX;
    while (end < most && p[end] != '\n') {
        if (p[end] == 0) {
            return TBF_EMALFORMED;
        }
        end++;
    }
    if (end == most) {
        return n < TBF_PROXY_V1_MAX ? TBF_MORE : TBF_EMALFORMED;
    }
    if (p[end - 1] != '\r') {
        return TBF_EMALFORMED;
    }
    out->total = end + 1;
    tbf_span line = {p + 6, end - 1 - 6}; /* behind "PROXY " */
    return read_line(line, out);
}

tbf_status tbf_proxy_read(const uint8_t *p, size_t n, tbf_proxy *out) {
    static const uint8_t TEXT[6] = {'P', 'R', 'O', 'X', 'Y', ' '};
    memset(out, 0, sizeof *out);
    if (n == 0) {
        return TBF_MORE;
    }
    if (memcmp(p, SIGNATURE, n < 12 ? n : 12) == 0) {
        return n < 12 ? TBF_MORE : read_binary(p, n, out);
    }
    if (memcmp(p, TEXT, n < 6 ? n : 6) == 0) {
        return n < 8 ? TBF_MORE : read_text(p, n, out);
    }
    return TBF_EMALFORMED;
}
