/* The commonest HTTP request, a telemetry POST of a device, found in one pass over its bytes.
 *
 * "Plain" = the whole read is one `POST /api/v1/<token>/telemetry HTTP/1.1` with a Content-Length,
 * a token of unreserved characters, and no header that changes how the connection or the body is
 * read or what the answer holds.  Anything else is left to the strict reader untouched; what is
 * plain here the reader accepts with the same token and body (tests/property). */
#ifndef TBF_HTTP_H
#define TBF_HTTP_H

#include "tbf_base.h"

typedef struct {
    tbf_span token;
    tbf_span body;
} tbf_http_plain;

/* Whether the n bytes at p are exactly one plain request. */
bool tbf_http_post(const uint8_t *p, size_t n, size_t max_head, unsigned max_headers,
                   tbf_http_plain *out);

#endif
