/* libFuzzer target: answers with values as strings.
 *
 * Beyond memory safety it checks that a larger buffer changes nothing, and that what was written
 * is an answer again, which then stays as it is. */
#include "tbf_stringify.h"
#include <stdio.h>
#include <stdlib.h>

static void check(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "broken: %s\n", what);
        abort();
    }
}

/* Input and output of exactly these sizes, so that one byte too far is seen. */
static tbf_status exact(const uint8_t *data, size_t n, size_t room, uint8_t **out, size_t *used) {
    uint8_t *copy = malloc(n ? n : 1);
    *out = malloc(room ? room : 1);
    if (copy == NULL || *out == NULL) {
        exit(0);
    }
    if (n > 0) {
        memcpy(copy, data, n);
    }
    tbf_status status = tbf_stringify((tbf_span){copy, n}, *out, room, used);
    free(copy);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *first, *second, *again;
    size_t n, m, k;
    tbf_status status = TBF_ENOSPACE;
    size_t room = size;
    for (; status == TBF_ENOSPACE; room *= 2, room++) {
        status = exact(data, size, room, &first, &n);
        check(n <= room, "length");
        if (status != TBF_OK) {
            free(first);
        }
    }
    if (status != TBF_OK) {
        return 0;
    }
    check(exact(data, size, 4 * room, &second, &m) == TBF_OK, "a larger buffer");
    check(m == n && memcmp(first, second, n) == 0, "another text in a larger buffer");
    check(exact(first, n, n, &again, &k) == TBF_OK, "the answer is no answer");
    check(k == n && memcmp(first, again, n) == 0, "strings do not stay");
    free(first);
    free(second);
    free(again);
    return 0;
}
