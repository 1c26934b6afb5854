/* Series chunks: writer of columns and their times.  Layout in tbf_chunk.h. */
#include "tbf_values.h"

enum { SHARED = sizeof((tbf_chunk_scratch *)0)->shared / sizeof(const tbf_column *) };

size_t tbf_chunk_bound(const tbf_column *columns, size_t count) {
    size_t total = 5 + TBF_VARINT_MAX;
    for (size_t c = 0; c < count; c++) {
        size_t n = columns[c].n, batches = n / TBF_CHUNK_BATCH + 1;
        total += 5 * TBF_VARINT_MAX + TBF_INTS_ROOM(0) * batches + 8 * n + tbf_values_room(n);
        for (size_t i = 0; i < n; i++) {
            uint8_t type = columns[c].cells[i].type;
            total += type == TBF_STRING || type == TBF_JSON || type == TBF_BYTES
                         ? columns[c].cells[i].n
                         : 0;
        }
    }
    return total;
}

static bool same_times(const tbf_column *a, const tbf_column *b) {
    return a->n == b->n &&
           (a->ts == b->ts || (a->ts[0] == b->ts[0] && a->ts[a->n - 1] == b->ts[b->n - 1] &&
                               memcmp(a->ts, b->ts, a->n * sizeof *a->ts) == 0));
}

static bool ascends(const int64_t *ts, size_t n) {
    bool wrong = false;
    for (size_t i = 1; i < n; i++) {
        wrong |= ts[i] <= ts[i - 1];
    }
    return !wrong;
}

tbf_status tbf_close_length(uint8_t *start, uint8_t **p, const uint8_t *end) {
    size_t n = (size_t)(*p - start) - 1, more = tbf_varint_bytes(n) - 1;
    if ((size_t)(end - *p) < more) {
        return TBF_ENOSPACE;
    }
    memmove(start + 1 + more, start + 1, n);
    tbf_put_varint(start, n);
    *p += more;
    return TBF_OK;
}

static tbf_status put_times(uint8_t **p, uint8_t *end, const int64_t *ts, size_t n) {
    if ((size_t)(end - *p) < 3 * TBF_VARINT_MAX + 1) {
        return TBF_ENOSPACE;
    }
    *p = tbf_put_varint(*p, n);
    *p = tbf_put_varint(*p, tbf_zigzag(ts[0]));
    if (n > 1) {
        *p = tbf_put_varint(*p, (uint64_t)ts[n - 1] - (uint64_t)ts[0]);
    }
    if (n <= 2) {
        return TBF_OK;
    }
    uint8_t *start = (*p)++;
    tbf_ints state = {.last = ts[0], .started = true};
    for (size_t at = 1; at < n;) {
        size_t k = TBF_CHUNK_BATCH - at % TBF_CHUNK_BATCH;
        k = n - at < k ? n - at : k;
        if ((size_t)(end - *p) < TBF_INTS_ROOM(k)) {
            return TBF_ENOSPACE;
        }
        *p = tbf_ints_put(*p, &state, ts + at, k);
        at += k;
    }
    return tbf_close_length(start, p, end);
}

/* Key of a column and its times: a reference to the same ones written lately, or themselves. */
static tbf_status put_head(uint8_t *out, uint8_t **p, uint8_t *end, const tbf_column *column,
                           tbf_chunk_scratch *scratch, size_t *distinct) {
    size_t here = (size_t)(*p - out), known = *distinct < SHARED ? *distinct : SHARED;
    if ((size_t)(end - *p) < 2 * TBF_VARINT_MAX) {
        return TBF_ENOSPACE;
    }
    *p = tbf_put_varint(*p, column->key);
    for (size_t back = 1; back <= known; back++) {
        size_t slot = (*distinct - back) % SHARED;
        if (same_times(column, scratch->shared[slot])) {
            *p = tbf_put_varint(*p, here - scratch->shared_at[slot]);
            return TBF_OK;
        }
    }
    if (!ascends(column->ts, column->n)) {
        return TBF_EMALFORMED;
    }
    *(*p)++ = 0;
    scratch->shared[*distinct % SHARED] = column;
    scratch->shared_at[*distinct % SHARED] = (size_t)(*p - out);
    ++*distinct;
    return put_times(p, end, column->ts, column->n);
}

tbf_status tbf_chunk_write(uint8_t *out, size_t cap, const tbf_column *columns, size_t count,
                           tbf_chunk_scratch *scratch, size_t *written) {
    uint8_t *p = out, *end = out + cap;
    size_t distinct = 0;
    if (count == 0 || count > UINT32_MAX) {
        return TBF_EMALFORMED;
    }
    if (cap < 5 + TBF_VARINT_MAX) {
        return TBF_ENOSPACE;
    }
    *p = TBF_CHUNK_VERSION;
    p = tbf_put_varint(p + 5, count);
    for (size_t c = 0; c < count; c++) {
        const tbf_column *column = &columns[c];
        if (column->n == 0 || column->n > TBF_CHUNK_POINTS_MAX) {
            return TBF_EMALFORMED;
        }
        tbf_status status = put_head(out, &p, end, column, scratch, &distinct);
        status = status != TBF_OK ? status : tbf_values_put(&p, end, column, scratch);
        if (status != TBF_OK) {
            return status;
        }
    }
    *written = (size_t)(p - out);
    tbf_store32(out + 1, tbf_crc32c(tbf_crc32c(0, out, 1), out + 5, *written - 5));
    return TBF_OK;
}
