/* Heads of HTTP/1.x requests and answers, read strictly (RFC 9112 2 to 6).
 *
 * The grammar leaves nothing to choose: lines end with CRLF, nothing is folded, there is one
 * framing, so two parsers cannot disagree about where a message ends (RFC 9112 11.2).  Spans point
 * into the bytes that were read. */
#ifndef TBF_HTTP_HEAD_H
#define TBF_HTTP_HEAD_H

#include "tbf_base.h"

#define TBF_HTTP_CONNECTION_MAX 1024u /* bytes of all Connection headers of a head together */

typedef enum {
    TBF_HTTP_OK = 0,
    TBF_HTTP_BAD_LINE,
    TBF_HTTP_BAD_METHOD,
    TBF_HTTP_BAD_VERSION,
    TBF_HTTP_BAD_HEADER,
    TBF_HTTP_BAD_LENGTH,
    TBF_HTTP_BAD_ENCODING,
    TBF_HTTP_BAD_HOST,
    TBF_HTTP_LONG_TARGET,
    TBF_HTTP_MANY_HEADERS,
    TBF_HTTP_OTHER_HOST, /* the target names another host than the Host header */
    TBF_HTTP_NO_PATH,    /* the target is no path of this node */
} tbf_http_fault;

/* What a head's headers say about the connection and the body. */
typedef struct {
    uint64_t length; /* of Content-Length, 0 without one */
    bool has_length;
    bool chunked;
    bool close;        /* Connection has this option */
    bool keep;         /* likewise */
    bool upgrade;      /* likewise */
    bool names_others; /* it names headers, which are then of this connection only */
    tbf_span lines;    /* all headers, each with its CRLF */
} tbf_http_fields;

typedef struct {
    int method; /* index into tbf_http_methods */
    unsigned minor;
    bool keep_alive;
    bool expects_continue; /* the peer would like to hear 100 before it sends the body */
    bool has_authority;    /* the target is absolute */
    bool has_host;
    bool websocket; /* it asks to upgrade to the one protocol that may follow (RFC 6455 4.1) */
    tbf_span target, path, query, authority, host;
    tbf_http_fields fields;
} tbf_http_request;

typedef struct {
    unsigned status;
    unsigned minor;
    bool keep_alive; /* the connection is good for another request */
    bool bodiless;   /* by status or by the request's method, whatever the headers say */
    tbf_span reason;
    tbf_http_fields fields;
} tbf_http_answer;

extern const char *const tbf_http_methods[]; /* ends with NULL */

/* Reads the n bytes at p: one request head with the empty line that ends it, and no more. */
tbf_http_fault tbf_http_request_read(const uint8_t *p, size_t n, size_t max_target,
                                     unsigned max_headers, tbf_http_request *out);

/* The same for the answer to a request; head: its method was HEAD. */
tbf_http_fault tbf_http_answer_read(const uint8_t *p, size_t n, bool head, tbf_http_answer *out);

/* Takes the next header off lines that were read; false at their end. */
bool tbf_http_next(tbf_span *lines, tbf_span *name, tbf_span *value);

/* Writes a request head for the controller: path, one Host, one framing, the peer's address, no
 * header of the connection and none that claims to say who the peer is.
 *
 * *n is the length; cap must be at least tbf_http_forward_room. */
tbf_http_fault tbf_http_forward(const tbf_http_request *request, tbf_span peer, uint8_t *out,
                                size_t cap, size_t *n);
size_t tbf_http_forward_room(size_t head, size_t peer);

/* Writes an answer's head for a peer; old: it speaks HTTP/1.0; chunked: the body's length is not
 * known and it comes in chunks.  Returns the length; cap as above, with a peer of no bytes. */
size_t tbf_http_return(const tbf_http_answer *answer, bool old, bool keep_alive, bool chunked,
                       uint8_t *out, size_t cap);

#endif
