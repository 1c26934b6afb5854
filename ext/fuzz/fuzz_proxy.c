/* libFuzzer target: the PROXY protocol header.
 *
 * Beyond memory safety it checks that a header read whole is "more" at every shorter length, and
 * that bytes behind it change nothing. */
#include "tbf_proxy.h"
#include <stdio.h>
#include <stdlib.h>

static void check(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "broken: %s\n", what);
        abort();
    }
}

/* Reads from an allocation of the exact size, so that one byte too far is seen. */
static tbf_status read_exact(const uint8_t *data, size_t n, tbf_proxy *out) {
    uint8_t *copy = malloc(n ? n : 1);
    if (copy == NULL) {
        exit(0);
    }
    if (n > 0) {
        memcpy(copy, data, n);
    }
    tbf_status status = tbf_proxy_read(copy, n, out);
    free(copy);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tbf_proxy whole, cut;
    if (read_exact(data, size, &whole) != TBF_OK) {
        return 0;
    }
    check(whole.total > 0 && whole.total <= size, "length of the header");
    check(read_exact(data, whole.total, &cut) == TBF_OK, "the header alone");
    check(memcmp(&whole.address, &cut.address, 16) == 0 && whole.port == cut.port &&
              whole.has_source == cut.has_source && whole.total == cut.total,
          "what follows the header");
    for (size_t n = 0; n < whole.total; n += 1 + n / 64) {
        check(read_exact(data, n, &cut) == TBF_MORE, "a header cut short");
    }
    return 0;
}
