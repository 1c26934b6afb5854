/* The header a proxy puts before a connection it passes on: PROXY protocol 1 (text) and 2 (binary),
 * as the HAProxy document of that name defines them.
 *
 * Only the source address matters to us.  TLVs of version 2 are skipped. */
#ifndef TBF_PROXY_H
#define TBF_PROXY_H

#include "tbf_base.h"

#define TBF_PROXY_V1_MAX 107u  /* bytes of the longest text header, line end included */
#define TBF_PROXY_V2_MAX 4096u /* the same of a binary one that we read */

typedef struct {
    uint8_t address[16]; /* of the source; IPv4 as IPv6 maps it */
    uint16_t port;
    bool has_source; /* false: a health check of the proxy itself, or not IP */
    size_t total;    /* bytes of the header: what follows belongs to the connection */
} tbf_proxy;

/* Reads the header at the start of the n bytes at p.
 *
 * TBF_OK, TBF_MORE (every byte so far can start a header), TBF_EMALFORMED, or TBF_ETOOBIG for a
 * version 2 header that declares more than TBF_PROXY_V2_MAX bytes. */
tbf_status tbf_proxy_read(const uint8_t *p, size_t n, tbf_proxy *out);

#endif
