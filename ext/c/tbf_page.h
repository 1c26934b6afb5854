/* Pages: small chunks of neighbouring devices, of one run, in one value: RocksDB asks more for a
 * key than the encoder for ten points.  Version 1, little-endian.
 *
 *   page      := version(1 byte: 0xC2)  CRC32C(4 bytes, of the version and of the directory)
 *                directory chunk*
 *   directory := varint(entries) (varint(place) varint(bytes))*
 *
 * A device's number is that of its page's first device plus its place; places ascend.  Each chunk
 * has a checksum of its own (tbf_chunk.h), so that one that is damaged costs no other. */
#ifndef TBF_PAGE_H
#define TBF_PAGE_H

#include "tbf_base.h"

#define TBF_PAGE_VERSION 0xC2u
#define TBF_PAGE_DEVICES 64u /* numbers that may share a page: a multiple of it and those after */

typedef struct {
    uint8_t place; /* below TBF_PAGE_DEVICES */
    tbf_span chunk;
} tbf_page_entry;

typedef struct {
    size_t count; /* at least 1 */
    tbf_page_entry entries[TBF_PAGE_DEVICES];
} tbf_page;

/* Bytes that are always enough for a page of these. */
size_t tbf_page_bound(const tbf_page *page);
/* Writes a page.  TBF_ENOSPACE: cap is below the bound.  TBF_EMALFORMED: it has no entries, too
 * many, or their places do not ascend. */
tbf_status tbf_page_write(uint8_t *out, size_t cap, const tbf_page *page, size_t *written);
/* Whether a value is a page rather than a chunk; of an empty one, false. */
static inline bool tbf_is_page(tbf_span value) {
    return value.n > 0 && value.p[0] == TBF_PAGE_VERSION;
}
/* Finds the chunks, without looking into them.  TBF_ECORRUPT, TBF_EVERSION. */
tbf_status tbf_page_open(tbf_span value, tbf_page *out);

#endif
