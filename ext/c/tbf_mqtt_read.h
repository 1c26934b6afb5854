/* Cursor primitives shared by the MQTT parsers.  Each takes its bytes off the front of a span and
 * returns false, with the span in an unspecified state, if they are not there. */
#ifndef TBF_MQTT_READ_H
#define TBF_MQTT_READ_H

#include "tbf_base.h"

static inline void tbf_skip(tbf_span *at, size_t n) {
    at->p += n;
    at->n -= n;
}

static inline bool tbf_take_u8(tbf_span *at, uint8_t *out) {
    if (at->n < 1) {
        return false;
    }
    *out = at->p[0];
    tbf_skip(at, 1);
    return true;
}

static inline bool tbf_take_u16(tbf_span *at, uint16_t *out) {
    if (at->n < 2) {
        return false;
    }
    *out = (uint16_t)(at->p[0] << 8 | at->p[1]);
    tbf_skip(at, 2);
    return true;
}

static inline bool tbf_take_u32(tbf_span *at, uint32_t *out) {
    if (at->n < 4) {
        return false;
    }
    *out = (uint32_t)at->p[0] << 24 | (uint32_t)at->p[1] << 16 | (uint32_t)at->p[2] << 8 | at->p[3];
    tbf_skip(at, 4);
    return true;
}

/* Two bytes of length, then as many bytes. */
static inline bool tbf_take_field(tbf_span *at, tbf_span *out) {
    uint16_t n;
    if (!tbf_take_u16(at, &n) || at->n < n) {
        return false;
    }
    *out = (tbf_span){at->p, n};
    tbf_skip(at, n);
    return true;
}

/* Variable byte integer (MQTT 5 1.5.5): at most four bytes. */
static inline bool tbf_take_vbi(tbf_span *at, uint32_t *out) {
    uint32_t v = 0;
    for (unsigned shift = 0; shift < 28; shift += 7) {
        uint8_t byte;
        if (!tbf_take_u8(at, &byte)) {
            return false;
        }
        v |= (uint32_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = v;
            return true;
        }
    }
    return false;
}

#endif
