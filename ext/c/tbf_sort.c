/* Radix sort, least significant digit first: passes over digits that all devices share are left
 * out, so that dense device numbers need two. */
#include "tbf_sort.h"

#include <stdbool.h>
#include <string.h>

enum { DIGIT_BITS = 11, DIGITS = 1 << DIGIT_BITS };

static bool ascends(const tbf_group *groups, size_t n) {
    for (size_t i = 1; i < n; i++) {
        if (groups[i].device < groups[i - 1].device) {
            return false;
        }
    }
    return true;
}

static void pass(const tbf_group *from, tbf_group *to, size_t n, unsigned shift) {
    size_t starts[DIGITS] = {0}, at = 0;
    for (size_t i = 0; i < n; i++) {
        starts[from[i].device >> shift & (DIGITS - 1)]++;
    }
    for (size_t d = 0; d < DIGITS; d++) {
        size_t count = starts[d];
        starts[d] = at;
        at += count;
    }
    for (size_t i = 0; i < n; i++) {
        to[starts[from[i].device >> shift & (DIGITS - 1)]++] = from[i];
    }
}

void tbf_sort_groups(tbf_group *groups, tbf_group *spare, size_t n) {
    uint64_t any = 0, all = UINT64_MAX;
    if (ascends(groups, n)) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        any |= groups[i].device;
        all &= groups[i].device;
    }
    tbf_group *from = groups, *to = spare;
    for (unsigned shift = 0; shift < 64; shift += DIGIT_BITS) {
        if (((any ^ all) >> shift & (DIGITS - 1)) != 0) {
            pass(from, to, n, shift);
            tbf_group *swap = from;
            from = to;
            to = swap;
        }
    }
    if (from != groups) {
        memcpy(groups, from, n * sizeof *groups);
    }
}
