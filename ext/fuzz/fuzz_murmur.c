/* libFuzzer target: MurmurHash3 in pieces gives what one piece gives.
 *
 * The first byte says where the input is split, over and over. */
#include "tbf_murmur.h"
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) {
        return 0;
    }
    size_t step = (size_t)data[0] + 1, n = size - 1;
    uint8_t *copy = malloc(n); /* of the exact size, so that one byte too far is seen */
    if (copy == NULL) {
        return 0;
    }
    memcpy(copy, data + 1, n);
    for (uint32_t block = 4; block <= 16; block += 12) {
        tbf_murmur whole, pieces;
        uint8_t a[16], b[16];
        tbf_murmur_begin(&whole, block);
        tbf_murmur_take(&whole, copy, n);
        tbf_murmur_begin(&pieces, block);
        for (size_t at = 0; at < n; at += step) {
            tbf_murmur_take(&pieces, copy + at, n - at < step ? n - at : step);
        }
        tbf_murmur_digest(&whole, a);
        tbf_murmur_digest(&pieces, b);
        if (memcmp(a, b, block) != 0) {
            fprintf(stderr, "broken: pieces\n");
            abort();
        }
    }
    free(copy);
    return 0;
}
