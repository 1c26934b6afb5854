/* See tbf_http_head.h. */
#include "tbf_http_head.h"

#include "tbf_http_names.h"

/* Those llhttp knows (RFC 9110 9, WebDAV and others); what is none of them is answered 405. */
const char *const tbf_http_methods[] = {
    "GET",         "POST",       "HEAD",   "PUT",       "DELETE",    "OPTIONS",
    "PATCH",       "CONNECT",    "TRACE",  "COPY",      "LOCK",      "MKCOL",
    "MOVE",        "PROPFIND",   "SEARCH", "PROPPATCH", "UNLOCK",    "BIND",
    "REBIND",      "UNBIND",     "ACL",    "REPORT",    "CHECKOUT",  "MERGE",
    "MKACTIVITY",  "M-SEARCH",   "NOTIFY", "PURGE",     "SUBSCRIBE", "LINK",
    "UNSUBSCRIBE", "MKCALENDAR", "UNLINK", "SOURCE",    "QUERY",     NULL};
enum { GET = 0, CONNECT = 7 };

static bool is_alpha(uint8_t c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }

static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

/* RFC 9110 5.6.2 */
static bool is_token(uint8_t c) {
    return is_alpha(c) || is_digit(c) || (c > 0x20 && c < 0x7F && strchr("!#$%&'*+-.^_`|~", c));
}

static bool starts(tbf_span span, const char *text, size_t n) {
    return span.n >= n && memcmp(span.p, text, n) == 0;
}

#define STARTS(span, text) starts(span, text, sizeof(text) - 1)

static tbf_span skip(tbf_span span, size_t n) { return (tbf_span){span.p + n, span.n - n}; }

/* --- headers -------------------------------------------------------------------------------- */

static tbf_span trimmed(tbf_span value) {
    while (value.n > 0 && (value.p[0] == ' ' || value.p[0] == '\t')) {
        value = skip(value, 1);
    }
    while (value.n > 0 && (value.p[value.n - 1] == ' ' || value.p[value.n - 1] == '\t')) {
        value.n--;
    }
    return value;
}

bool tbf_http_next(tbf_span *lines, tbf_span *name, tbf_span *value) {
    if (lines->n == 0) {
        return false;
    }
    const uint8_t *colon = memchr(lines->p, ':', lines->n);
    const uint8_t *end =
        colon == NULL ? NULL : memchr(colon, '\r', lines->n - (size_t)(colon - lines->p));
    if (end == NULL) {
        return false;
    }
    *name = (tbf_span){lines->p, (size_t)(colon - lines->p)};
    *value = trimmed((tbf_span){colon + 1, (size_t)(end - colon) - 1});
    *lines = skip(*lines, (size_t)(end - lines->p) + 2);
    return true;
}

bool tbf_http_option(tbf_span *list, tbf_span *option) {
    if (list->n == 0) {
        return false;
    }
    const uint8_t *comma = memchr(list->p, ',', list->n);
    size_t n = comma == NULL ? list->n : (size_t)(comma - list->p);
    *option = trimmed((tbf_span){list->p, n});
    *list = skip(*list, comma == NULL ? n : n + 1);
    return true;
}

static void take_connection(tbf_span list, tbf_http_fields *out) {
    tbf_span option;
    while (tbf_http_option(&list, &option)) {
        if (TBF_HTTP_IS(option, "close")) {
            out->close = true;
        } else if (TBF_HTTP_IS(option, "keep-alive")) {
            out->keep = true;
        } else if (TBF_HTTP_IS(option, "upgrade")) {
            out->upgrade = true;
        } else if (option.n > 0) {
            out->names_others = true;
        }
    }
}

static bool take_length(tbf_span value, tbf_http_fields *out) {
    if (value.n == 0 || out->has_length) {
        return false;
    }
    uint64_t length = 0;
    for (size_t i = 0; i < value.n; i++) {
        if (!is_digit(value.p[i]) || length > (INT64_MAX - 9) / 10) {
            return false;
        }
        length = length * 10 + (uint64_t)(value.p[i] - '0');
    }
    out->length = length;
    out->has_length = true;
    return true;
}

/* Whether span starts with one header, of *n bytes without its CRLF; strict: RFC 9110 5.5, else
 * what the controller may send. */
static bool header_line(tbf_span span, bool strict, tbf_span *name, tbf_span *value, size_t *n) {
    size_t at = 0;
    while (at < span.n && is_token(span.p[at])) {
        at++;
    }
    if (at == 0 || at == span.n || span.p[at] != ':') {
        return false;
    }
    *name = (tbf_span){span.p, at};
    size_t start = ++at;
    while (at < span.n && span.p[at] != '\r') {
        uint8_t c = span.p[at];
        if (c < 0x20 ? (strict ? c != '\t' : c == 0 || c == '\n') : strict && c == 0x7F) {
            return false;
        }
        at++;
    }
    if (span.n - at < 2 || span.p[at + 1] != '\n') {
        return false;
    }
    *value = trimmed((tbf_span){span.p + start, at - start});
    *n = at;
    return true;
}

/* One header that says how the message is read. */
static tbf_http_fault take_field(tbf_span name, tbf_span value, tbf_http_fields *out,
                                 size_t *connection) {
    switch (tbf_http_name_of(name)) {
    case TBF_HTTP_CONTENT_LENGTH:
        return take_length(value, out) ? TBF_HTTP_OK : TBF_HTTP_BAD_LENGTH;
    case TBF_HTTP_TRANSFER_ENCODING:
        if (out->chunked || !TBF_HTTP_IS(value, "chunked")) {
            return TBF_HTTP_BAD_ENCODING;
        }
        out->chunked = true;
        return TBF_HTTP_OK;
    case TBF_HTTP_CONNECTION:
        *connection += value.n + 1;
        if (*connection > TBF_HTTP_CONNECTION_MAX) {
            return TBF_HTTP_MANY_HEADERS;
        }
        take_connection(value, out);
        return TBF_HTTP_OK;
    default:
        return TBF_HTTP_OK;
    }
}

/* All headers and the empty line behind them; hear(context, name, value) gets each. */
typedef tbf_http_fault (*hear_fn)(void *context, tbf_span name, tbf_span value);

static tbf_http_fault read_fields(tbf_span span, unsigned max_headers, bool strict, hear_fn hear,
                                  void *context, tbf_http_fields *out) {
    size_t connection = 0;
    out->lines = (tbf_span){span.p, 0};
    for (unsigned count = 0;; count++) {
        if (STARTS(span, "\r\n")) {
            out->lines.n = (size_t)(span.p - out->lines.p);
            if (span.n != 2) {
                return TBF_HTTP_BAD_HEADER;
            }
            return out->chunked && out->has_length ? TBF_HTTP_BAD_LENGTH : TBF_HTTP_OK;
        }
        tbf_span name, value;
        size_t n;
        if (count == max_headers) {
            return TBF_HTTP_MANY_HEADERS;
        }
        if (!header_line(span, strict, &name, &value, &n)) {
            return TBF_HTTP_BAD_HEADER;
        }
        tbf_http_fault fault = take_field(name, value, out, &connection);
        if (fault == TBF_HTTP_OK && hear != NULL) {
            fault = hear(context, name, value);
        }
        if (fault != TBF_HTTP_OK) {
            return fault;
        }
        span = skip(span, n + 2);
    }
}

/* --- requests ------------------------------------------------------------------------------- */

static int method_of(tbf_span word) {
    for (int i = 0; tbf_http_methods[i] != NULL; i++) {
        if (strlen(tbf_http_methods[i]) == word.n &&
            memcmp(tbf_http_methods[i], word.p, word.n) == 0) {
            return i;
        }
    }
    return -1;
}

/* RFC 3986 3.2, as far as a host that is only compared needs it. */
static bool is_authority(tbf_span span) {
    for (size_t i = 0; i < span.n; i++) {
        uint8_t c = span.p[i];
        if (!is_alpha(c) && !is_digit(c) && strchr("!$%&'()*+,-.:;=@[]_~", c) == NULL) {
            return false;
        }
    }
    return true;
}

static size_t until(tbf_span span, uint8_t a, uint8_t b) {
    size_t n = 0;
    while (n < span.n && span.p[n] != a && span.p[n] != b) {
        n++;
    }
    return n;
}

/* Forms of RFC 9112 3.2; the path of one that is none is the target itself. */
static bool split_target(tbf_http_request *out) {
    tbf_span target = out->target, rest = target;
    for (size_t i = 0; i < target.n; i++) {
        if (target.p[i] <= 0x20 || target.p[i] >= 0x7F) {
            return false;
        }
    }
    if (target.n == 0) {
        return false;
    }
    if (target.p[0] != '/' && target.p[0] != '*') {
        size_t scheme = 0;
        while (scheme < target.n && is_alpha(target.p[scheme])) {
            scheme++;
        }
        bool absolute = scheme > 0 && STARTS(skip(target, scheme), "://");
        if (!absolute && out->method != CONNECT) {
            return false;
        }
        tbf_span authority = absolute ? skip(target, scheme + 3) : target;
        authority.n = until(authority, '/', '?');
        if (!is_authority(authority)) {
            return false;
        }
        if (STARTS(target, "http://") || STARTS(target, "https://")) {
            out->has_authority = true;
            out->authority = authority;
            rest = (tbf_span){authority.p + authority.n,
                              target.n - (size_t)(authority.p + authority.n - target.p)};
        }
    }
    size_t n = until(rest, '?', '?');
    out->path = (tbf_span){rest.p, n};
    if (out->has_authority && n == 0) {
        out->path = (tbf_span){(const uint8_t *)"/", 1};
    }
    n = until(target, '?', '?');
    out->query = n == target.n ? (tbf_span){target.p + n, 0} : skip(target, n + 1);
    return true;
}

/* The line without its CRLF. */
static tbf_http_fault request_line(tbf_span line, size_t max_target, tbf_http_request *out) {
    size_t end = line.n;
    bool spoken = line.n > 9 && memcmp(line.p + line.n - 9, " HTTP/1.", 8) == 0 &&
                  (line.p[line.n - 1] == '0' || line.p[line.n - 1] == '1');
    size_t n = until(line, ' ', ' ');
    out->method = method_of((tbf_span){line.p, n});
    if (out->method < 0) {
        for (size_t i = 0; i < n; i++) {
            spoken = spoken && is_alpha(line.p[i]);
        }
        return spoken ? TBF_HTTP_BAD_METHOD : TBF_HTTP_BAD_LINE;
    }
    if (!spoken) {
        size_t version = line.n;
        while (version > 0 && line.p[version - 1] != ' ') {
            version--;
        }
        tbf_span word = skip(line, version);
        return STARTS(word, "HTTP/") ? TBF_HTTP_BAD_VERSION : TBF_HTTP_BAD_LINE;
    }
    out->minor = (unsigned)(line.p[line.n - 1] - '0');
    end -= 9;
    /* RFC 9112 3: more than one blank between the words may pass. */
    while (n < end && line.p[n] == ' ') {
        n++;
    }
    while (end > n && line.p[end - 1] == ' ') {
        end--;
    }
    out->target = (tbf_span){line.p + n, end - n};
    if (out->target.n > max_target) {
        return TBF_HTTP_LONG_TARGET;
    }
    return split_target(out) ? TBF_HTTP_OK : TBF_HTTP_BAD_LINE;
}

static tbf_http_fault hear_request(void *context, tbf_span name, tbf_span value) {
    tbf_http_request *out = context;
    tbf_http_fields old;
    switch (tbf_http_name_of(name)) {
    case TBF_HTTP_HOST:
        if (out->has_host) {
            return TBF_HTTP_BAD_HOST;
        }
        out->has_host = true;
        out->host = value;
        break;
    case TBF_HTTP_EXPECT:
        out->expects_continue |= out->minor == 1 && TBF_HTTP_IS(value, "100-continue");
        break;
    case TBF_HTTP_UPGRADE:
        out->websocket = TBF_HTTP_IS(value, "websocket");
        break;
    case TBF_HTTP_PROXY_CONNECTION: /* of old clients; it says the same, but names no headers */
        memset(&old, 0, sizeof old);
        take_connection(value, &old);
        out->fields.close |= old.close;
        out->fields.keep |= old.keep;
        break;
    default:
        break;
    }
    return TBF_HTTP_OK;
}

tbf_http_fault tbf_http_request_read(const uint8_t *p, size_t n, size_t max_target,
                                     unsigned max_headers, tbf_http_request *out) {
    memset(out, 0, sizeof *out);
    const uint8_t *end = n == 0 ? NULL : memchr(p, '\r', n);
    size_t line = end == NULL ? n : (size_t)(end - p);
    if (line > max_target + 32) {
        return TBF_HTTP_LONG_TARGET;
    }
    if (n - line < 2 || p[line + 1] != '\n') {
        return TBF_HTTP_BAD_LINE;
    }
    tbf_http_fault fault = request_line((tbf_span){p, line}, max_target, out);
    if (fault != TBF_HTTP_OK) {
        return fault;
    }
    fault = read_fields((tbf_span){p + line + 2, n - line - 2}, max_headers, true, hear_request,
                        out, &out->fields);
    if (fault != TBF_HTTP_OK) {
        return fault;
    }
    const tbf_http_fields *fields = &out->fields;
    if (!out->has_host && out->minor == 1) {
        return TBF_HTTP_BAD_HOST;
    }
    if (fields->chunked && out->minor == 0) {
        return TBF_HTTP_BAD_ENCODING;
    }
    out->keep_alive = !fields->close && (out->minor == 1 || fields->keep);
    out->websocket = out->websocket && fields->upgrade && out->method == GET && out->minor == 1 &&
                     !fields->chunked && fields->length == 0;
    return TBF_HTTP_OK;
}

/* --- answers -------------------------------------------------------------------------------- */

tbf_http_fault tbf_http_answer_read(const uint8_t *p, size_t n, bool head, tbf_http_answer *out) {
    enum { STATUS = 12 }; /* bytes of "HTTP/1.1 200" */
    memset(out, 0, sizeof *out);
    const uint8_t *end = n == 0 ? NULL : memchr(p, '\r', n);
    size_t line = end == NULL ? n : (size_t)(end - p);
    if (line < STATUS || n - line < 2 || p[line + 1] != '\n' || memcmp(p, "HTTP/1.", 7) != 0 ||
        (p[7] != '0' && p[7] != '1') || p[8] != ' ' || p[9] < '1' || p[9] > '5' ||
        !is_digit(p[10]) || !is_digit(p[11]) || (line > STATUS && p[STATUS] != ' ')) {
        return TBF_HTTP_BAD_LINE;
    }
    out->minor = (unsigned)(p[7] - '0');
    out->status = (unsigned)(p[9] - '0') * 100 + (unsigned)(p[10] - '0') * 10 + (p[11] - '0');
    if (line > STATUS) {
        out->reason = (tbf_span){p + STATUS + 1, line - STATUS - 1};
        for (size_t i = 0; i < out->reason.n; i++) {
            if (out->reason.p[i] == '\n' || out->reason.p[i] == 0) {
                return TBF_HTTP_BAD_LINE;
            }
        }
    }
    tbf_http_fault fault = read_fields((tbf_span){p + line + 2, n - line - 2}, (unsigned)n, false,
                                       NULL, NULL, &out->fields);
    if (fault != TBF_HTTP_OK) {
        return fault;
    }
    const tbf_http_fields *fields = &out->fields;
    out->bodiless = head || out->status < 200 || out->status == 204 || out->status == 304;
    out->keep_alive = !fields->close && (out->minor == 1 || fields->keep) &&
                      (out->bodiless || fields->chunked || fields->has_length);
    return TBF_HTTP_OK;
}
