/* See tbf_http.h. */
#include "tbf_http.h"

#define TOKEN_MAX 255u
#define LENGTH_DIGITS 8u

static const char HEAD[] = "POST /api/v1/";
static const char TAIL[] = "/telemetry HTTP/1.1\r\n";

static bool is_alnum(uint8_t c) {
    return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

static bool is_unreserved(uint8_t c) {
    return is_alnum(c) || c == '-' || c == '_' || c == '.' || c == '~';
}

/* Letters, digits and hyphens only: other names are legal, but nobody sends them. */
static bool is_name(uint8_t c) { return is_alnum(c) || c == '-'; }

static bool same_name(tbf_span name, const char *lower, size_t n) {
    if (name.n != n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if ((name.p[i] | 0x20) != (uint8_t)lower[i]) {
            return false;
        }
    }
    return true;
}

#define IS(span, text) same_name(span, text, sizeof(text) - 1)

/* Headers that this path knows nothing of. */
static bool is_special(tbf_span name) {
    return IS(name, "transfer-encoding") || IS(name, "expect") || IS(name, "upgrade") ||
           IS(name, "origin") || IS(name, "te") || IS(name, "trailer") ||
           IS(name, "proxy-connection");
}

/* Whether a Content-Type leaves the body what it is, UTF-8. */
static bool is_utf8(tbf_span value) {
    static const char NAME[] = "charset=utf-8";
    const size_t n = sizeof NAME - 1;
    return memchr(value.p, '=', value.n) == NULL ||
           (value.n > n && IS(((tbf_span){value.p + value.n - n, n}), NAME));
}

static bool take_length(tbf_span value, size_t *out) {
    if (value.n == 0 || value.n > LENGTH_DIGITS) {
        return false;
    }
    size_t length = 0;
    for (size_t i = 0; i < value.n; i++) {
        if (value.p[i] < '0' || value.p[i] > '9') {
            return false;
        }
        length = length * 10 + (size_t)(value.p[i] - '0');
    }
    *out = length;
    return true;
}

/* One header line at p, of n bytes to the end of all; *used includes its CRLF. */
static bool take_header(const uint8_t *p, size_t n, tbf_span *name, tbf_span *value, size_t *used) {
    size_t at = 0;
    while (at < n && is_name(p[at])) {
        at++;
    }
    if (at == 0 || at == n || p[at] != ':') {
        return false;
    }
    *name = (tbf_span){p, at};
    at++;
    while (at < n && p[at] == ' ') {
        at++;
    }
    size_t start = at;
    while (at < n && p[at] >= 0x20 && p[at] < 0x7F) {
        at++;
    }
    if (n - at < 2 || p[at] != '\r' || p[at + 1] != '\n') {
        return false;
    }
    size_t end = at;
    while (end > start && p[end - 1] == ' ') {
        end--;
    }
    *value = (tbf_span){p + start, end - start};
    *used = at + 2;
    return true;
}

bool tbf_http_post(const uint8_t *p, size_t n, size_t max_head, unsigned max_headers,
                   tbf_http_plain *out) {
    size_t at = sizeof HEAD - 1;
    if (n < at || memcmp(p, HEAD, at) != 0) {
        return false;
    }
    size_t start = at;
    while (at < n && at - start <= TOKEN_MAX && is_unreserved(p[at])) {
        at++;
    }
    out->token = (tbf_span){p + start, at - start};
    if (out->token.n == 0 || out->token.n > TOKEN_MAX || p[start] == '.' ||
        n - at < sizeof TAIL - 1 || memcmp(p + at, TAIL, sizeof TAIL - 1) != 0) {
        return false;
    }
    at += sizeof TAIL - 1;
    bool has_host = false, has_length = false;
    size_t length = 0;
    for (unsigned headers = 0;; headers++) {
        if (n - at >= 2 && p[at] == '\r' && p[at + 1] == '\n') {
            at += 2;
            break;
        }
        tbf_span name, value;
        size_t used;
        if (headers == max_headers || !take_header(p + at, n - at, &name, &value, &used) ||
            is_special(name)) {
            return false;
        }
        at += used;
        if (IS(name, "host")) {
            if (has_host) {
                return false;
            }
            has_host = true;
        } else if (IS(name, "content-length")) {
            if (has_length || !take_length(value, &length)) {
                return false;
            }
            has_length = true;
        } else if (IS(name, "content-type") && !is_utf8(value)) {
            return false;
        } else if (IS(name, "connection") && !IS(value, "keep-alive")) {
            return false;
        }
    }
    if (!has_host || !has_length || at > max_head || n - at != length) {
        return false;
    }
    out->body = (tbf_span){p + at, length};
    return true;
}
