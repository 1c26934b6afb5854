/* Series chunks: reader of the chunk and its columns' heads.  Layout in tbf_chunk.h. */
#include "tbf_values.h"

static const uint8_t *get_span(const uint8_t *p, const uint8_t *end, tbf_span *out) {
    uint64_t n;
    p = tbf_get_varint(p, end, &n);
    if (p == NULL || (uint64_t)(end - p) < n) {
        return NULL;
    }
    *out = (tbf_span){p, (size_t)n};
    return p + n;
}

/* Blocks of 128 points take at least two bytes each: a short column cannot claim many. */
static bool plausible(uint64_t points, size_t bytes) {
    return points <= TBF_CHUNK_POINTS_MAX && bytes / 2 >= points / TBF_CHUNK_BATCH;
}

static const uint8_t *get_times(const uint8_t *p, const uint8_t *end, tbf_chunk_column *out) {
    uint64_t points, min, span = 0;
    if ((p = tbf_get_varint(p, end, &points)) == NULL ||
        (p = tbf_get_varint(p, end, &min)) == NULL || points == 0) {
        return NULL;
    }
    out->min_ts = tbf_unzigzag(min);
    out->times = (tbf_span){p, 0};
    if (points > 1 && ((p = tbf_get_varint(p, end, &span)) == NULL || span < points - 1 ||
                       span > (uint64_t)INT64_MAX - (uint64_t)out->min_ts)) {
        return NULL;
    }
    if (points > 2 && (p = get_span(p, end, &out->times)) == NULL) {
        return NULL;
    }
    if (!plausible(points, out->times.n)) {
        return NULL;
    }
    out->points = (uint32_t)points;
    out->max_ts = (int64_t)((uint64_t)out->min_ts + span);
    return p;
}

static bool set_kind(tbf_chunk_column *out, uint8_t kind) {
    out->kind = (tbf_column_kind)(kind & ~TBF_COLUMN_DICTIONARY);
    out->has_dictionary = (kind & TBF_COLUMN_DICTIONARY) != 0;
    return out->kind <= TBF_COLUMN_MIXED &&
           (!out->has_dictionary || out->kind >= TBF_COLUMN_STRING);
}

static const uint8_t *get_column(const uint8_t *first, const uint8_t *p, const uint8_t *end,
                                 tbf_chunk_column *out) {
    const uint8_t *here = p;
    uint64_t key, times_at;
    if ((p = tbf_get_varint(p, end, &key)) == NULL || key > UINT32_MAX ||
        (p = tbf_get_varint(p, end, &times_at)) == NULL) {
        return NULL;
    }
    out->key = (uint32_t)key;
    if (times_at == 0) {
        p = get_times(p, end, out);
    } else if ((uint64_t)(here - first) < times_at ||
               get_times(here - times_at, here, out) == NULL) {
        return NULL;
    }
    if (p == NULL || p == end || !set_kind(out, *p)) {
        return NULL;
    }
    p = get_span(p + 1, end, &out->values);
    /* Every point of a text has a length, everything else comes in blocks. */
    return p == NULL || out->values.n == 0 || !plausible(out->points, out->values.n) ? NULL : p;
}

tbf_status tbf_chunk_next(const tbf_chunk *chunk, size_t *at, tbf_chunk_column *out) {
    if (*at == chunk->bytes.n) {
        return TBF_MORE;
    }
    const uint8_t *p = chunk->bytes.p;
    const uint8_t *after = get_column(p + chunk->first, p + *at, p + chunk->bytes.n, out);
    if (after == NULL) {
        return TBF_ECORRUPT;
    }
    *at = (size_t)(after - p);
    return TBF_OK;
}

tbf_status tbf_chunk_open(tbf_span bytes, tbf_chunk *out) {
    const uint8_t *p = bytes.p, *end = bytes.p + bytes.n;
    uint64_t columns, seen = 0;
    if (bytes.n < 6 || (*p & 0xF0) != (TBF_CHUNK_VERSION & 0xF0)) {
        return TBF_ECORRUPT;
    }
    if (*p != TBF_CHUNK_VERSION) {
        return TBF_EVERSION;
    }
    if (tbf_load32(p + 1) != tbf_crc32c(tbf_crc32c(0, p, 1), p + 5, bytes.n - 5)) {
        return TBF_ECORRUPT;
    }
    p = tbf_get_varint(p + 5, end, &columns);
    if (p == NULL || columns == 0 || (uint64_t)(end - p) < columns) {
        return TBF_ECORRUPT;
    }
    *out = (tbf_chunk){.bytes = bytes,
                       .first = (size_t)(p - bytes.p),
                       .columns = (uint32_t)columns,
                       .min_ts = INT64_MAX,
                       .max_ts = INT64_MIN};
    tbf_chunk_column column;
    tbf_status status;
    size_t at = out->first;
    while ((status = tbf_chunk_next(out, &at, &column)) == TBF_OK) {
        seen++;
        out->points += column.points;
        out->min_ts = column.min_ts < out->min_ts ? column.min_ts : out->min_ts;
        out->max_ts = column.max_ts > out->max_ts ? column.max_ts : out->max_ts;
    }
    return status == TBF_MORE && seen == columns ? TBF_OK : TBF_ECORRUPT;
}
