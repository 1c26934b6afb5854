/* CRC32C: the processor's instruction where there is one (x86-64 SSE4.2, ARMv8 CRC), else bit by
 * bit: right, but about 30 times slower. */
#include "tbf_base.h"

#define POLY 0x82F63B78u /* 0x1EDC6F41 reflected */

static uint32_t bitwise_crc(uint32_t crc, const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (POLY & (0u - (crc & 1u)));
        }
    }
    return crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>
#define HAVE_FAST() __builtin_cpu_supports("sse4.2")
__attribute__((target("sse4.2"))) static uint32_t fast_crc(uint32_t crc, const uint8_t *p,
                                                           size_t n) {
    uint64_t wide = crc;
    for (; n >= 8; p += 8, n -= 8) {
        wide = _mm_crc32_u64(wide, tbf_load64(p));
    }
    crc = (uint32_t)wide;
    for (; n > 0; p++, n--) {
        crc = _mm_crc32_u8(crc, *p);
    }
    return crc;
}
#elif defined(__aarch64__) && defined(__linux__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#define HAVE_FAST() ((getauxval(AT_HWCAP) & HWCAP_CRC32) != 0)
__attribute__((target("+crc"))) static uint32_t fast_crc(uint32_t crc, const uint8_t *p, size_t n) {
    for (; n >= 8; p += 8, n -= 8) {
        crc = __crc32cd(crc, tbf_load64(p));
    }
    for (; n > 0; p++, n--) {
        crc = __crc32cb(crc, *p);
    }
    return crc;
}
#endif

uint32_t tbf_crc32c(uint32_t crc, const uint8_t *p, size_t n) {
    crc = ~crc;
#ifdef HAVE_FAST
    if (HAVE_FAST()) {
        return ~fast_crc(crc, p, n);
    }
#endif
    return ~bitwise_crc(crc, p, n);
}
