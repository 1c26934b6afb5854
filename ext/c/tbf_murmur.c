/* MurmurHash3 (Austin Appleby, public domain algorithm), streamed. */
#include "tbf_murmur.h"

#define A32 0xcc9e2d51u
#define B32 0x1b873593u
#define A64 0x87c37b91114253d5u
#define B64 0x4cf5ad432745937fu

static inline uint32_t rotated32(uint32_t v, unsigned by) { return (v << by) | (v >> (32 - by)); }
static inline uint64_t rotated64(uint64_t v, unsigned by) { return (v << by) | (v >> (64 - by)); }

static inline uint32_t mixed32(uint32_t k) { return rotated32(k * A32, 15) * B32; }
static inline uint64_t mixed_low(uint64_t k) { return rotated64(k * A64, 31) * B64; }
static inline uint64_t mixed_high(uint64_t k) { return rotated64(k * B64, 33) * A64; }

static void take_block(tbf_murmur *m, const uint8_t *p) {
    if (m->block == 4) {
        uint32_t h = (uint32_t)m->h[0] ^ mixed32(tbf_load32(p));
        m->h[0] = (uint32_t)(rotated32(h, 13) * 5 + 0xe6546b64u);
        return;
    }
    m->h[0] ^= mixed_low(tbf_load64(p));
    m->h[0] = (rotated64(m->h[0], 27) + m->h[1]) * 5 + 0x52dce729u;
    m->h[1] ^= mixed_high(tbf_load64(p + 8));
    m->h[1] = (rotated64(m->h[1], 31) + m->h[0]) * 5 + 0x38495ab5u;
}

static uint64_t finished64(uint64_t h) {
    h = (h ^ (h >> 33)) * 0xff51afd7ed558ccdu;
    h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53u;
    return h ^ (h >> 33);
}

void tbf_murmur_begin(tbf_murmur *m, uint32_t block) {
    memset(m, 0, sizeof *m);
    m->block = block;
}

void tbf_murmur_take(tbf_murmur *m, const uint8_t *p, size_t n) {
    m->length += n;
    if (m->waiting > 0) {
        size_t missing = m->block - m->waiting;
        size_t part = n < missing ? n : missing;
        memcpy(m->tail + m->waiting, p, part);
        m->waiting += (uint32_t)part;
        if (m->waiting < m->block) {
            return;
        }
        take_block(m, m->tail);
        m->waiting = 0;
        p += part;
        n -= part;
    }
    for (; n >= m->block; p += m->block, n -= m->block) {
        take_block(m, p);
    }
    if (n > 0) {
        memcpy(m->tail, p, n);
        m->waiting = (uint32_t)n;
    }
}

void tbf_murmur_digest(const tbf_murmur *m, uint8_t *out) {
    uint8_t tail[16] = {0};
    memcpy(tail, m->tail, m->waiting);
    if (m->block == 4) {
        uint32_t h = (uint32_t)m->h[0] ^ mixed32(tbf_load32(tail)) ^ (uint32_t)m->length;
        h = (h ^ (h >> 16)) * 0x85ebca6bu;
        h = (h ^ (h >> 13)) * 0xc2b2ae35u;
        tbf_store32(out, h ^ (h >> 16));
        return;
    }
    uint64_t low = m->h[0] ^ mixed_low(tbf_load64(tail)) ^ m->length;
    uint64_t high = m->h[1] ^ mixed_high(tbf_load64(tail + 8)) ^ m->length;
    low += high;
    high += low;
    low = finished64(low);
    high = finished64(high);
    low += high;
    high += low;
    tbf_store64(out, low);
    tbf_store64(out + 8, high);
}
