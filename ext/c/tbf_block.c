/* Journal block writer and reader; layout in tbf_block.h, rows in tbf_batch.h. */
#include "tbf_block.h"

static const uint8_t MAGIC[4] = {'T', 'B', 'J', 'B'};

static uint32_t defs_bytes(const tbf_keys *k, uint32_t first_key, uint8_t *out) {
    uint8_t head[TBF_VARINT_MAX];
    size_t total = 0;
    for (uint32_t number = first_key; number <= k->count; number++) {
        const tbf_key *key = &k->keys[number - 1];
        size_t head_n = (size_t)(tbf_put_varint(head, key->name_len) - head);
        if (out != NULL) {
            memcpy(out + total, head, head_n);
            memcpy(out + total + head_n, k->names + key->name_off, key->name_len);
        }
        total += head_n + key->name_len;
    }
    return (uint32_t)total;
}

size_t tbf_block_size(const tbf_batch *b, uint32_t first_key) {
    return TBF_BLOCK_HEADER + defs_bytes(b->keys, first_key, NULL) + b->len;
}

void tbf_block_write(uint8_t *out, const tbf_batch *b, uint32_t journal_id, uint32_t epoch,
                     uint64_t seq, int64_t commit_ms, uint32_t first_key) {
    uint32_t defs_n = defs_bytes(b->keys, first_key, out + TBF_BLOCK_HEADER);
    memcpy(out, MAGIC, sizeof MAGIC);
    out[4] = TBF_BLOCK_VERSION;
    out[5] = 0;
    out[6] = TBF_BLOCK_HEADER;
    out[7] = 0;
    tbf_store32(out + 8, journal_id);
    tbf_store32(out + 12, epoch);
    tbf_store64(out + 16, seq);
    tbf_store64(out + 24, (uint64_t)commit_ms);
    tbf_store64(out + 32, (uint64_t)b->base_ms);
    tbf_store64(out + 40, (uint64_t)b->min_ts);
    tbf_store64(out + 48, (uint64_t)b->max_ts);
    tbf_store32(out + 56, defs_n);
    tbf_store32(out + 60, (uint32_t)b->len);
    tbf_store32(out + 64, b->record_count);
    tbf_store32(out + 68, b->point_count);
    tbf_store32(out + 72, first_key);
    memcpy(out + TBF_BLOCK_HEADER + defs_n, b->buf, b->len);
    uint32_t crc = tbf_crc32c(0, out, 76);
    tbf_store32(out + 76, tbf_crc32c(crc, out + TBF_BLOCK_HEADER, defs_n + b->len));
}

tbf_status tbf_block_open(tbf_span bytes, tbf_block *out) {
    const uint8_t *p = bytes.p;
    if (bytes.n < TBF_BLOCK_HEADER || memcmp(p, MAGIC, sizeof MAGIC) != 0) {
        return TBF_ECORRUPT;
    }
    if (p[4] != TBF_BLOCK_VERSION || p[5] != 0) {
        return TBF_EVERSION;
    }
    size_t defs_n = tbf_load32(p + 56), rows_n = tbf_load32(p + 60);
    size_t body = bytes.n - TBF_BLOCK_HEADER;
    if (tbf_load16(p + 6) != TBF_BLOCK_HEADER || body < defs_n || body - defs_n != rows_n) {
        return TBF_ECORRUPT;
    }
    uint32_t crc = tbf_crc32c(tbf_crc32c(0, p, 76), p + TBF_BLOCK_HEADER, body);
    if (crc != tbf_load32(p + 76)) {
        return TBF_ECORRUPT;
    }
    uint32_t records = tbf_load32(p + 64), points = tbf_load32(p + 68);
    /* Readers make room for as many: a record takes three bytes at least, a point one. */
    if (records > rows_n / 3 || points > rows_n) {
        return TBF_ECORRUPT;
    }
    *out = (tbf_block){.journal_id = tbf_load32(p + 8),
                       .epoch = tbf_load32(p + 12),
                       .seq = tbf_load64(p + 16),
                       .commit_ms = (int64_t)tbf_load64(p + 24),
                       .base_ms = (int64_t)tbf_load64(p + 32),
                       .min_ts = (int64_t)tbf_load64(p + 40),
                       .max_ts = (int64_t)tbf_load64(p + 48),
                       .record_count = records,
                       .point_count = points,
                       .first_key = tbf_load32(p + 72),
                       .defs = {p + TBF_BLOCK_HEADER, defs_n},
                       .rows = {p + TBF_BLOCK_HEADER + defs_n, rows_n}};
    return TBF_OK;
}

/* Takes varint(n) and n bytes off the front of [p, end); NULL if they are not all there. */
static const uint8_t *take_bytes(const uint8_t *p, const uint8_t *end, tbf_span *out) {
    uint64_t n;
    p = tbf_get_varint(p, end, &n);
    if (p == NULL || (uint64_t)(end - p) < n) {
        return NULL;
    }
    *out = (tbf_span){p, (size_t)n};
    return p + n;
}

static void advance(tbf_span *at, const uint8_t *p) {
    at->n -= (size_t)(p - at->p);
    at->p = p;
}

tbf_status tbf_next_def(tbf_span *at, tbf_span *name) {
    if (at->n == 0) {
        return TBF_MORE;
    }
    const uint8_t *p = take_bytes(at->p, at->p + at->n, name);
    if (p == NULL) {
        return TBF_ECORRUPT;
    }
    advance(at, p);
    return TBF_OK;
}

tbf_status tbf_next_record(tbf_span *at, int64_t base_ms, tbf_record *out) {
    if (at->n == 0) {
        return TBF_MORE;
    }
    const uint8_t *end = at->p + at->n;
    uint64_t device_kind, delta;
    const uint8_t *p = tbf_get_varint(at->p, end, &device_kind);
    p = p == NULL ? NULL : tbf_get_varint(p, end, &delta);
    p = p == NULL ? NULL : take_bytes(p, end, &out->points);
    if (p == NULL || (device_kind & 3) > TBF_KIND_CLIENT_ATTR) {
        return TBF_ECORRUPT;
    }
    out->device = device_kind >> 2;
    out->kind = (tbf_kind)(device_kind & 3);
    out->ts_ms = (int64_t)((uint64_t)base_ms + (uint64_t)tbf_unzigzag(delta));
    advance(at, p);
    return TBF_OK;
}

tbf_status tbf_next_point(tbf_span *at, tbf_point *out) {
    if (at->n == 0) {
        return TBF_MORE;
    }
    const uint8_t *end = at->p + at->n;
    uint64_t tag, wide;
    const uint8_t *p = tbf_get_varint(at->p, end, &tag);
    if (p == NULL || tag >> 4 > UINT32_MAX) {
        return TBF_ECORRUPT;
    }
    out->key = (uint32_t)(tag >> 4);
    out->type = (tbf_type)(tag & 7);
    out->dead = (tag & TBF_POINT_DEAD) != 0;
    if (out->key == 0 && (p = take_bytes(p, end, &out->name)) == NULL) {
        return TBF_ECORRUPT;
    }
    switch (out->type) {
    case TBF_DOUBLE:
        if ((size_t)(end - p) < sizeof out->f64) {
            return TBF_ECORRUPT;
        }
        memcpy(&out->f64, p, sizeof out->f64);
        p += sizeof out->f64;
        break;
    case TBF_FALSE:
    case TBF_TRUE:
        break;
    case TBF_STRING:
    case TBF_JSON:
    case TBF_BYTES:
        p = take_bytes(p, end, &out->bytes);
        break;
    case TBF_DECIMAL:
        if (p == end || *p > TBF_DECIMAL_SCALE_MAX) {
            return TBF_ECORRUPT;
        }
        out->scale = *p++;
        /* fall through */
    case TBF_INT64:
        p = tbf_get_varint(p, end, &wide);
        out->i64 = p == NULL ? 0 : tbf_unzigzag(wide);
        break;
    }
    if (p == NULL) {
        return TBF_ECORRUPT;
    }
    advance(at, p);
    return TBF_OK;
}

size_t tbf_decimal_text(uint8_t *out, int64_t mantissa, uint8_t scale) {
    uint8_t digits[TBF_DECIMAL_TEXT];
    size_t n = 0, len = 0;
    uint64_t v = mantissa < 0 ? 0 - (uint64_t)mantissa : (uint64_t)mantissa;
    do { /* least significant first, at least one digit before the point */
        digits[n++] = (uint8_t)('0' + v % 10);
        v /= 10;
    } while (v > 0 || n <= scale);
    if (mantissa < 0) {
        out[len++] = '-';
    }
    while (n > 0) {
        if (n == scale) {
            out[len++] = '.';
        }
        out[len++] = digits[--n];
    }
    return len;
}
