/* libFuzzer target: heads of HTTP requests and answers, read and written anew.
 *
 * Beyond memory safety it checks that what is written can be read again, says the same, has one
 * framing, fits the room that was announced, and is written the same way once more. */
#include "tbf_http_head.h"
#include <stdio.h>
#include <stdlib.h>

#define TARGET_MAX 8192u
#define HEADERS_MAX 100u

static const tbf_span PEER = {(const uint8_t *)"2001:db8::1", 11};

static void check(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "broken: %s\n", what);
        abort();
    }
}

/* Memory of the exact size, so that one byte too far is seen. */
static uint8_t *room(size_t n) {
    uint8_t *p = malloc(n ? n : 1);
    if (p == NULL) {
        exit(0);
    }
    return p;
}

static bool same(tbf_span a, tbf_span b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static void check_request(const uint8_t *p, size_t n) {
    tbf_http_request first, second;
    if (tbf_http_request_read(p, n, TARGET_MAX, HEADERS_MAX, &first) != TBF_HTTP_OK) {
        return;
    }
    check(!(first.fields.chunked && first.fields.has_length), "one framing");
    check(first.has_host || first.minor == 0, "a host");
    size_t cap = tbf_http_forward_room(n, PEER.n), written = 0, again = 0;
    uint8_t *out = room(cap);
    tbf_http_fault fault = tbf_http_forward(&first, PEER, out, cap, &written);
    check(fault == TBF_HTTP_OK || fault == TBF_HTTP_NO_PATH || fault == TBF_HTTP_OTHER_HOST,
          "room for a request");
    if (fault == TBF_HTTP_OK) {
        /* Host and peer are new to the first of two heads, so bounds are not those of the peer. */
        check(tbf_http_request_read(out, written, 2 * TARGET_MAX, HEADERS_MAX + 4, &second) ==
                  TBF_HTTP_OK,
              "a written request is right");
        check(first.method == second.method && same(first.path, second.path) &&
                  same(first.query, second.query) && !second.has_authority,
              "what is asked");
        check(first.fields.chunked == second.fields.chunked &&
                  first.fields.has_length == second.fields.has_length &&
                  first.fields.length == second.fields.length &&
                  first.websocket == second.websocket,
              "how it goes on");
        size_t more = tbf_http_forward_room(written, PEER.n);
        uint8_t *copy = room(more);
        check(tbf_http_forward(&second, PEER, copy, more, &again) == TBF_HTTP_OK &&
                  again == written && memcmp(out, copy, written) == 0,
              "writing it once more");
        free(copy);
    }
    free(out);
}

static void check_answer(const uint8_t *p, size_t n, unsigned flags) {
    tbf_http_answer first, second;
    bool head = flags & 1, old = flags & 2, keep_alive = flags & 4;
    if (tbf_http_answer_read(p, n, head, &first) != TBF_HTTP_OK) {
        return;
    }
    bool unknown = !first.bodiless && !first.fields.has_length;
    size_t cap = tbf_http_forward_room(n, 0);
    uint8_t *out = room(cap);
    size_t written = tbf_http_return(&first, old, keep_alive, unknown && !old, out, cap);
    check(written > 0, "room for an answer");
    check(tbf_http_answer_read(out, written, head, &second) == TBF_HTTP_OK, "an answer is right");
    check(first.status == second.status && same(first.reason, second.reason), "what it says");
    check(second.bodiless || second.fields.has_length || second.fields.chunked || old, "a framing");
    check(first.status < 200 || second.fields.close == !keep_alive, "how it goes on");
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    uint8_t *copy = room(size - 1);
    memcpy(copy, data + 1, size - 1);
    check_request(copy, size - 1);
    check_answer(copy, size - 1, data[0]);
    free(copy);
    return 0;
}
