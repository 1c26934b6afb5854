/* MurmurHash3 over pieces of any size, seed 0: x86_32 and x64_128, as Guava's murmur3_32 and
 * murmur3_128. */
#ifndef TBF_MURMUR_H
#define TBF_MURMUR_H

#include "tbf_base.h"

typedef struct {
    uint64_t h[2];
    uint64_t length;  /* bytes taken so far */
    uint32_t block;   /* 4: x86_32, 16: x64_128; also the size of the digest */
    uint32_t waiting; /* bytes of an incomplete block, less than `block` */
    uint8_t tail[16];
} tbf_murmur;

/* block: 4 or 16. */
void tbf_murmur_begin(tbf_murmur *m, uint32_t block);
void tbf_murmur_take(tbf_murmur *m, const uint8_t *p, size_t n);

/* Writes the digest, `block` little-endian bytes; m stays good for more. */
void tbf_murmur_digest(const tbf_murmur *m, uint8_t *out);

#endif
