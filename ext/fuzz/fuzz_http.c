/* libFuzzer target: the plain telemetry POST.
 *
 * Beyond memory safety it checks that what is taken for plain lies inside the input and follows the
 * grammar that tbf_http.h promises. */
#include "tbf_http.h"
#include <stdio.h>
#include <stdlib.h>

static void check(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "broken: %s\n", what);
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    /* An allocation of the exact size, so that one byte too far is seen. */
    uint8_t *copy = malloc(size ? size : 1);
    if (copy == NULL) {
        return 0;
    }
    if (size > 0) {
        memcpy(copy, data, size);
    }
    tbf_http_plain plain;
    if (tbf_http_post(copy, size, 16384, 100, &plain)) {
        check(plain.token.n > 0 && plain.token.n <= 255, "token length");
        check(plain.token.p == copy + 13, "token place");
        check(plain.body.p >= copy && plain.body.p + plain.body.n == copy + size, "body place");
        check(memcmp(plain.body.p - 4, "\r\n\r\n", 4) == 0, "end of head");
    }
    free(copy);
    return 0;
}
