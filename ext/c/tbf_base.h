/* Shared vocabulary of the C parsers: spans, status codes, varints, seeded hash.
 *
 * Rules for every file here: no Python.h, no malloc; a span comes in, a struct goes out; every
 * read is preceded by a comparison of the form "remaining < wanted" (never "position + length >
 * end", which wraps).  Lengths are unsigned end to end. */
#ifndef TBF_BASE_H
#define TBF_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    const uint8_t *p;
    size_t n;
} tbf_span;

/* Every fallible function returns one of these.  0 is success; the rest say who must act. */
typedef enum {
    TBF_OK = 0,
    TBF_MORE = 1,       /* not an error: the packet is not complete yet */
    TBF_EMALFORMED = 2, /* the peer broke the protocol's grammar */
    TBF_ETOOBIG = 3,    /* a declared length is above the configured limit */
    TBF_EREJECT = 4,    /* grammar is fine, the content is refused (MQTT: 0x99) */
    TBF_ENOSPACE = 5,   /* the caller's output buffer is too small: grow it and call again */
    TBF_ECORRUPT = 6,   /* stored bytes fail their checksum or their own structure */
    TBF_EVERSION = 7,   /* stored bytes are of a format version this build does not know */
    TBF_EPROTOCOL = 8   /* the peer speaks another protocol, or a version of it we do not know */
} tbf_status;

#define TBF_LIKELY(x) __builtin_expect(!!(x), 1)
#define TBF_UNLIKELY(x) __builtin_expect(!!(x), 0)

static inline uint16_t tbf_load16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline uint32_t tbf_load32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline uint64_t tbf_load64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void tbf_store32(uint8_t *p, uint32_t v) { memcpy(p, &v, sizeof v); }
static inline void tbf_store64(uint8_t *p, uint64_t v) { memcpy(p, &v, sizeof v); }

static inline uint64_t tbf_zigzag(int64_t v) { return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63); }
static inline int64_t tbf_unzigzag(uint64_t v) { return (int64_t)(v >> 1) ^ -(int64_t)(v & 1); }

/* Equality of two short texts of the same length, without a call for the usual key name. */
static inline bool tbf_same_bytes(const uint8_t *a, const uint8_t *b, size_t n) {
    if (TBF_UNLIKELY(n > 32)) {
        return memcmp(a, b, n) == 0;
    }
    uint64_t differ = 0;
    if (n >= 8) {
        for (size_t i = 0; i + 8 < n; i += 8) {
            differ |= tbf_load64(a + i) ^ tbf_load64(b + i);
        }
        return (differ | (tbf_load64(a + n - 8) ^ tbf_load64(b + n - 8))) == 0;
    }
    if (n >= 4) {
        return ((tbf_load32(a) ^ tbf_load32(b)) |
                (tbf_load32(a + n - 4) ^ tbf_load32(b + n - 4))) == 0;
    }
    for (size_t i = 0; i < n; i++) {
        differ |= a[i] ^ b[i];
    }
    return differ == 0;
}

#define TBF_VARINT_MAX 10u /* bytes of the longest LEB128 uint64 */

/* Writes v at p (room for TBF_VARINT_MAX bytes) and returns the byte after it. */
static inline uint8_t *tbf_put_varint(uint8_t *p, uint64_t v) {
    while (v >= 0x80) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}

/* Reads one varint; returns the byte after it, or NULL if it is cut short or exceeds 64 bits. */
static inline const uint8_t *tbf_get_varint(const uint8_t *p, const uint8_t *end, uint64_t *out) {
    if (TBF_LIKELY(p < end && *p < 0x80)) {
        *out = *p;
        return p + 1;
    }
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (p >= end) {
            return NULL;
        }
        uint8_t byte = *p++;
        if (shift == 63 && byte > 1) {
            return NULL;
        }
        v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = v;
            return p;
        }
    }
    return NULL;
}

/* Hash of peer-chosen bytes.  Seeded with 128 random bits per process so that nobody outside can
 * aim at a bucket.  (Construction: multiply-fold of 16-byte lanes.) */
static inline uint64_t tbf_fold(uint64_t a, uint64_t b) {
    __uint128_t m = (__uint128_t)a * b;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}
static inline uint64_t tbf_hash(const uint8_t *p, size_t n, const uint64_t seed[2]) {
    uint64_t h = seed[0] ^ (n * 0x9E3779B97F4A7C15u), a, b;
    while (n > 16) {
        h = tbf_fold(tbf_load64(p) ^ seed[1], tbf_load64(p + 8) ^ h);
        p += 16;
        n -= 16;
    }
    if (n >= 8) {
        a = tbf_load64(p);
        b = tbf_load64(p + n - 8);
    } else if (n >= 4) {
        a = tbf_load32(p);
        b = tbf_load32(p + n - 4);
    } else if (n > 0) {
        a = ((uint64_t)p[0] << 16) | ((uint64_t)p[n >> 1] << 8) | p[n - 1];
        b = 0;
    } else {
        a = b = 0;
    }
    return tbf_fold(a ^ seed[1] ^ 0xA0761D6478BD642Fu, b ^ h ^ 0xE7037ED1A0B428DBu);
}

/* CRC32C (Castagnoli), as of RFC 3720 appendix B.4; SSE4.2 when the processor has it. */
uint32_t tbf_crc32c(uint32_t crc, const uint8_t *p, size_t n);

#endif
