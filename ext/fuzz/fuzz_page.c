/* libFuzzer target: pages of chunks.  An even first byte: the rest is a page, whose checksum is put
 * right where its directory parses.  An odd one: the rest is cut into chunks, which become one.
 *
 * Beyond memory errors it looks for a page that is read, written, and then differs. */
#include "tbf_page.h"

#include <stdlib.h>

enum { HEAD = 5 };

static void insist(bool truth) {
    if (!truth) {
        abort();
    }
}

static void insist_same(const tbf_page *a, const tbf_page *b) {
    insist(a->count == b->count);
    for (size_t i = 0; i < a->count; i++) {
        tbf_span x = a->entries[i].chunk, y = b->entries[i].chunk;
        insist(a->entries[i].place == b->entries[i].place && x.n == y.n);
        insist(x.n == 0 || memcmp(x.p, y.p, x.n) == 0);
    }
}

/* What was read, or made, is written and read again. */
static void write_and_read(const tbf_page *page) {
    tbf_page again;
    size_t bound = tbf_page_bound(page), written = 0;
    uint8_t *out = malloc(bound);
    insist(out != NULL);
    insist(tbf_page_write(out, bound - 1, page, &written) == TBF_ENOSPACE);
    insist(tbf_page_write(out, bound, page, &written) == TBF_OK && written <= bound);
    insist(tbf_page_open((tbf_span){out, written}, &again) == TBF_OK);
    insist_same(page, &again);
    if (written > HEAD) { /* no part of it is one */
        insist(tbf_page_open((tbf_span){out, written - 1}, &again) != TBF_OK);
    }
    free(out);
}

/* The checksum that a page with this directory has; false if that does not parse. */
static bool mend(uint8_t *p, size_t n) {
    uint64_t count, value;
    const uint8_t *at = p + HEAD, *end = p + n;
    if (n < HEAD || (at = tbf_get_varint(at, end, &count)) == NULL) {
        return false;
    }
    for (uint64_t i = 0; i < 2 * count; i++) {
        if ((at = tbf_get_varint(at, end, &value)) == NULL) {
            return false;
        }
    }
    p[0] = TBF_PAGE_VERSION;
    uint32_t sum = tbf_crc32c(tbf_crc32c(0, p, 1), p + HEAD, (size_t)(at - p) - HEAD);
    tbf_store32(p + 1, sum);
    return true;
}

static void read_page(const uint8_t *data, size_t n) {
    tbf_page page;
    uint8_t *own = malloc(n + (n == 0)); /* of that size, so that a byte too far is seen */
    insist(own != NULL);
    if (n > 0) {
        memcpy(own, data, n);
    }
    (void)tbf_page_open((tbf_span){own, n}, &page);
    if (mend(own, n) && tbf_page_open((tbf_span){own, n}, &page) == TBF_OK) {
        insist(tbf_is_page((tbf_span){own, n}));
        write_and_read(&page);
    }
    free(own);
}

/* Each chunk from two bytes: places to go on, length. */
static void make_page(const uint8_t *data, size_t n) {
    tbf_page page = {.count = 0};
    size_t at = 0, place = 0, written;
    while (n - at >= 2 && page.count < TBF_PAGE_DEVICES) {
        size_t length = data[at + 1];
        place += data[at] % 8;
        at += 2;
        length = length < n - at ? length : n - at;
        page.entries[page.count++] = (tbf_page_entry){(uint8_t)place++, {data + at, length}};
        at += length;
    }
    uint8_t small[HEAD];
    if (page.count == 0 || place > TBF_PAGE_DEVICES) { /* past 255 they do not ascend either */
        insist(tbf_page_write(small, sizeof small, &page, &written) == TBF_EMALFORMED);
        return;
    }
    write_and_read(&page);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n == 0) {
        return 0;
    }
    (data[0] % 2 == 0 ? read_page : make_page)(data + 1, n - 1);
    return 0;
}
