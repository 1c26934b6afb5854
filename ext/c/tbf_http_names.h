/* Header names that mean something to a proxy (RFC 9110 7.6.1), shared by reader and writer. */
#ifndef TBF_HTTP_NAMES_H
#define TBF_HTTP_NAMES_H

#include "tbf_base.h"

typedef enum {
    TBF_HTTP_ORDINARY,
    TBF_HTTP_CONNECTION,
    TBF_HTTP_CONTENT_LENGTH,
    TBF_HTTP_TRANSFER_ENCODING,
    TBF_HTTP_UPGRADE,
    TBF_HTTP_PROXY_CONNECTION,
    TBF_HTTP_HOP, /* another one of this connection only */
    TBF_HTTP_LAST_HOP = TBF_HTTP_HOP,
    /* In requests only: */
    TBF_HTTP_HOST,
    TBF_HTTP_EXPECT,
    TBF_HTTP_CLAIM, /* who the peer is, only the proxy says */
} tbf_http_name;

static inline uint8_t tbf_http_lower(uint8_t c) { return c >= 'A' && c <= 'Z' ? c | 0x20 : c; }

/* Whether a span is a text given in lower case. */
static inline bool tbf_http_is(tbf_span span, const char *lower, size_t n) {
    if (span.n != n) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if (tbf_http_lower(span.p[i]) != (uint8_t)lower[i]) {
            return false;
        }
    }
    return true;
}

#define TBF_HTTP_IS(span, text) tbf_http_is(span, text, sizeof(text) - 1)

tbf_http_name tbf_http_name_of(tbf_span name);

/* Takes the next option off the value of a Connection header; an empty one is possible. */
bool tbf_http_option(tbf_span *list, tbf_span *option);

#endif
