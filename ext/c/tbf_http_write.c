/* Heads written anew, from what was understood of those that came. */
#include "tbf_http_head.h"
#include "tbf_http_names.h"

#define PEER "x-tbfast-peer"

/* Fixed text that a written head can have and the one it is made of has not, generously. */
#define FIXED_ROOM 256u

tbf_http_name tbf_http_name_of(tbf_span name) {
    static const struct {
        const char *text;
        size_t n;
        tbf_http_name name;
    } NAMES[] = {
#define NAME(text, name) {text, sizeof(text) - 1, name}
        NAME("host", TBF_HTTP_HOST),
        NAME("connection", TBF_HTTP_CONNECTION),
        NAME("content-length", TBF_HTTP_CONTENT_LENGTH),
        NAME("transfer-encoding", TBF_HTTP_TRANSFER_ENCODING),
        NAME("upgrade", TBF_HTTP_UPGRADE),
        NAME("expect", TBF_HTTP_EXPECT),
        NAME("keep-alive", TBF_HTTP_HOP),
        NAME("proxy-authenticate", TBF_HTTP_HOP),
        NAME("proxy-authorization", TBF_HTTP_HOP),
        NAME("proxy-connection", TBF_HTTP_PROXY_CONNECTION),
        NAME("te", TBF_HTTP_HOP),
        NAME("trailer", TBF_HTTP_HOP),
        NAME(PEER, TBF_HTTP_CLAIM),
        NAME("forwarded", TBF_HTTP_CLAIM),
        NAME("x-forwarded-for", TBF_HTTP_CLAIM),
        NAME("x-forwarded-host", TBF_HTTP_CLAIM),
        NAME("x-forwarded-port", TBF_HTTP_CLAIM),
        NAME("x-forwarded-proto", TBF_HTTP_CLAIM),
        NAME("x-real-ip", TBF_HTTP_CLAIM),
        NAME("http2-settings", TBF_HTTP_CLAIM),
#undef NAME
    };
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        if (NAMES[i].n == name.n && tbf_http_is(name, NAMES[i].text, name.n)) {
            return NAMES[i].name;
        }
    }
    return TBF_HTTP_ORDINARY;
}

/* Whether a Connection header names this one. */
static bool is_named(const tbf_http_fields *fields, tbf_span header) {
    tbf_span lines = fields->lines, name, value, option;
    while (tbf_http_next(&lines, &name, &value)) {
        if (!TBF_HTTP_IS(name, "connection")) {
            continue;
        }
        while (tbf_http_option(&value, &option)) {
            size_t i = 0;
            while (option.n == header.n && i < option.n &&
                   tbf_http_lower(option.p[i]) == tbf_http_lower(header.p[i])) {
                i++;
            }
            if (option.n == header.n && i == option.n) {
                return true;
            }
        }
    }
    return false;
}

/* --- output --------------------------------------------------------------------------------- */

typedef struct {
    uint8_t *p;
    size_t n, cap;
    bool full;
} writer;

static void put(writer *out, const void *p, size_t n) {
    if (out->cap - out->n < n) {
        out->full = true;
        return;
    }
    if (n > 0) {
        memcpy(out->p + out->n, p, n);
        out->n += n;
    }
}

#define PUT(out, text) put(out, text, sizeof(text) - 1)

static void put_span(writer *out, tbf_span span) { put(out, span.p, span.n); }

static void put_lower(writer *out, tbf_span span) {
    size_t at = out->n;
    put_span(out, span);
    for (; at < out->n; at++) {
        out->p[at] = tbf_http_lower(out->p[at]);
    }
}

static void put_number(writer *out, uint64_t v) {
    uint8_t digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (uint8_t)('0' + v % 10);
        v /= 10;
    } while (v > 0);
    put(out, digits + at, sizeof digits - at);
}

static void put_length(writer *out, uint64_t length) {
    PUT(out, "content-length: ");
    put_number(out, length);
    PUT(out, "\r\n");
}

/* --- requests ------------------------------------------------------------------------------- */

static bool same_text(tbf_span a, tbf_span b) {
    if (a.n != b.n) {
        return false;
    }
    for (size_t i = 0; i < a.n; i++) {
        if (tbf_http_lower(a.p[i]) != tbf_http_lower(b.p[i])) {
            return false;
        }
    }
    return true;
}

size_t tbf_http_forward_room(size_t head, size_t peer) {
    return head + peer + FIXED_ROOM + head / 4; /* "a:" becomes "a: ", of four bytes with CRLF */
}

static void put_fields(writer *out, const tbf_http_request *request) {
    const tbf_http_fields *fields = &request->fields;
    bool named = fields->names_others;
    tbf_span lines = fields->lines, name, value;
    while (tbf_http_next(&lines, &name, &value)) {
        if (tbf_http_name_of(name) == TBF_HTTP_ORDINARY && !(named && is_named(fields, name))) {
            put_lower(out, name);
            PUT(out, ": ");
            put_span(out, value);
            PUT(out, "\r\n");
        }
    }
}

tbf_http_fault tbf_http_forward(const tbf_http_request *request, tbf_span peer, uint8_t *p,
                                size_t cap, size_t *n) {
    const tbf_http_fields *fields = &request->fields;
    static const uint8_t LOCAL[] = "localhost";
    tbf_span host = request->has_host ? request->host : (tbf_span){LOCAL, sizeof LOCAL - 1};
    if (request->path.n == 0 || request->path.p[0] != '/') {
        return TBF_HTTP_NO_PATH;
    }
    if (request->has_authority && !same_text(request->authority, host)) {
        return TBF_HTTP_OTHER_HOST;
    }
    writer out = {p, 0, cap, false};
    const char *method = tbf_http_methods[request->method];
    put(&out, method, strlen(method));
    PUT(&out, " ");
    put_span(&out, request->path);
    if (request->query.n > 0) {
        PUT(&out, "?");
        put_span(&out, request->query);
    }
    PUT(&out, " HTTP/1.1\r\nhost: ");
    put_span(&out, host);
    PUT(&out, "\r\n" PEER ": ");
    put_span(&out, peer);
    PUT(&out, "\r\n");
    put_fields(&out, request);
    if (fields->chunked) {
        PUT(&out, "transfer-encoding: chunked\r\n");
    } else if (fields->has_length) {
        put_length(&out, fields->length);
    }
    if (request->websocket) {
        PUT(&out, "connection: upgrade\r\nupgrade: websocket\r\n");
    } else if (request->expects_continue) {
        PUT(&out, "expect: 100-continue\r\n");
    }
    PUT(&out, "\r\n");
    *n = out.full ? 0 : out.n;
    return out.full ? TBF_HTTP_MANY_HEADERS : TBF_HTTP_OK;
}

/* --- answers -------------------------------------------------------------------------------- */

size_t tbf_http_return(const tbf_http_answer *answer, bool old, bool keep_alive, bool chunked,
                       uint8_t *p, size_t cap) {
    const tbf_http_fields *fields = &answer->fields;
    bool interim = answer->status < 200 && answer->status != 101;
    writer out = {p, 0, cap, false};
    PUT(&out, "HTTP/1.1 ");
    put_number(&out, answer->status);
    PUT(&out, " ");
    put_span(&out, answer->reason);
    PUT(&out, "\r\n");
    tbf_span lines = fields->lines, name, value;
    for (const uint8_t *line = lines.p; tbf_http_next(&lines, &name, &value); line = lines.p) {
        tbf_http_name known = tbf_http_name_of(name);
        bool hop = known != TBF_HTTP_ORDINARY && known <= TBF_HTTP_LAST_HOP;
        if (!hop && !(fields->names_others && is_named(fields, name))) {
            put(&out, line, (size_t)(lines.p - line));
        }
    }
    if (fields->has_length && answer->status >= 200 && answer->status != 204) {
        /* Also where it is no framing: of HEAD and 304 (RFC 9110 8.6). */
        put_length(&out, fields->length);
    }
    if (answer->status == 101) {
        PUT(&out, "connection: upgrade\r\nupgrade: websocket\r\n");
    } else if (!interim && !keep_alive) {
        PUT(&out, "connection: close\r\n");
    } else if (!interim && old) {
        PUT(&out, "connection: keep-alive\r\n");
    }
    if (chunked && !interim && answer->status != 101) {
        PUT(&out, "transfer-encoding: chunked\r\n");
    }
    PUT(&out, "\r\n");
    return out.full ? 0 : out.n;
}
