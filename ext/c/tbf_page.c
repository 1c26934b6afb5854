/* See tbf_page.h. */
#include "tbf_page.h"

enum { HEAD = 5 };

size_t tbf_page_bound(const tbf_page *page) {
    size_t total = HEAD + TBF_VARINT_MAX;
    for (size_t i = 0; i < page->count && i < TBF_PAGE_DEVICES; i++) {
        total += 1 + TBF_VARINT_MAX + page->entries[i].chunk.n;
    }
    return total;
}

static bool is_proper(const tbf_page *page) {
    if (page->count == 0 || page->count > TBF_PAGE_DEVICES) {
        return false;
    }
    for (size_t i = 0; i < page->count; i++) {
        uint8_t place = page->entries[i].place;
        if (place >= TBF_PAGE_DEVICES || (i > 0 && place <= page->entries[i - 1].place)) {
            return false;
        }
    }
    return true;
}

static uint32_t checksum(const uint8_t *page, const uint8_t *end) {
    return tbf_crc32c(tbf_crc32c(0, page, 1), page + HEAD, (size_t)(end - page) - HEAD);
}

tbf_status tbf_page_write(uint8_t *out, size_t cap, const tbf_page *page, size_t *written) {
    if (!is_proper(page)) {
        return TBF_EMALFORMED;
    }
    if (cap < tbf_page_bound(page)) {
        return TBF_ENOSPACE;
    }
    *out = TBF_PAGE_VERSION;
    uint8_t *p = tbf_put_varint(out + HEAD, page->count);
    for (size_t i = 0; i < page->count; i++) {
        *p++ = page->entries[i].place;
        p = tbf_put_varint(p, page->entries[i].chunk.n);
    }
    tbf_store32(out + 1, checksum(out, p));
    for (size_t i = 0; i < page->count; i++) {
        tbf_span chunk = page->entries[i].chunk;
        if (chunk.n > 0) {
            memcpy(p, chunk.p, chunk.n);
        }
        p += chunk.n;
    }
    *written = (size_t)(p - out);
    return TBF_OK;
}

tbf_status tbf_page_open(tbf_span value, tbf_page *out) {
    uint64_t count, place, n;
    if (value.n < HEAD) {
        return TBF_ECORRUPT;
    }
    const uint8_t *p = value.p + HEAD, *end = value.p + value.n;
    if (value.p[0] != TBF_PAGE_VERSION) {
        return TBF_EVERSION;
    }
    p = tbf_get_varint(p, end, &count);
    if (p == NULL || count == 0 || count > TBF_PAGE_DEVICES) {
        return TBF_ECORRUPT;
    }
    out->count = (size_t)count;
    for (size_t i = 0; i < count; i++) {
        p = tbf_get_varint(p, end, &place);
        p = p == NULL ? NULL : tbf_get_varint(p, end, &n);
        if (p == NULL || place >= TBF_PAGE_DEVICES || n > value.n ||
            (i > 0 && place <= out->entries[i - 1].place)) {
            return TBF_ECORRUPT;
        }
        out->entries[i].place = (uint8_t)place;
        out->entries[i].chunk.n = (size_t)n;
    }
    if (tbf_load32(value.p + 1) != checksum(value.p, p)) {
        return TBF_ECORRUPT;
    }
    for (size_t i = 0; i < count; i++) {
        if (out->entries[i].chunk.n > (size_t)(end - p)) {
            return TBF_ECORRUPT;
        }
        out->entries[i].chunk.p = p;
        p += out->entries[i].chunk.n;
    }
    return p == end ? TBF_OK : TBF_ECORRUPT;
}
