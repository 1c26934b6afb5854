/* Series chunks: decoder of one column.  Layout in tbf_chunk.h. */
#include "tbf_values.h"

/* ---- the head of the values ---- */

static bool open_numbers(tbf_cursor *c) {
    size_t bytes = c->number_kind == TBF_COLUMN_NUMBER    ? 2
                   : c->number_kind == TBF_COLUMN_DECIMAL ? 1
                                                          : 0;
    if ((size_t)(c->v_end - c->v) < bytes) {
        return false;
    }
    c->scale = bytes > 0 ? c->v[0] : 0;
    c->floor = bytes > 1 ? c->v[1] : c->scale;
    c->v += bytes;
    return c->floor <= c->scale && c->scale <= (bytes > 1 ? TBF_POWERS_MAX : TBF_CHUNK_SCALE_MAX);
}

/* Takes varint(n) and n bytes off the values. */
static bool take_text(tbf_cursor *c, const uint8_t **text, uint32_t *n) {
    uint64_t bytes;
    const uint8_t *p = tbf_get_varint(c->v, c->v_end, &bytes);
    if (p == NULL || (uint64_t)(c->v_end - p) < bytes || bytes > UINT32_MAX) {
        return false;
    }
    *text = p;
    *n = (uint32_t)bytes;
    c->v = p + bytes;
    return true;
}

static bool open_dictionary(tbf_cursor *c) {
    uint64_t entries;
    if ((c->v = tbf_get_varint(c->v, c->v_end, &entries)) == NULL || entries == 0 ||
        entries > TBF_DICTIONARY_MAX) {
        return false;
    }
    c->entries = (uint32_t)entries;
    for (uint32_t i = 0; i < c->entries; i++) {
        if (!take_text(c, &c->texts[i].p, &c->texts[i].n)) {
            return false;
        }
    }
    return true;
}

tbf_status tbf_cursor_open(tbf_cursor *c, const tbf_chunk_column *column, int64_t from,
                           int64_t to) {
    c->kind = (uint8_t)column->kind;
    c->number_kind = c->kind <= TBF_COLUMN_FORMS ? c->kind : TBF_COLUMN_INT64;
    c->has_dictionary = column->has_dictionary;
    c->left = column->min_ts > to || column->max_ts < from ? 0 : column->points;
    c->from = from;
    c->to = to;
    c->max_ts = column->max_ts;
    c->t = column->times.p;
    c->t_end = c->t + column->times.n;
    c->v = column->values.p;
    c->v_end = c->v + column->values.n;
    c->times = (tbf_ints){.last = column->min_ts, .started = true};
    c->classes = c->forms = c->indexes = (tbf_ints){.started = true};
    c->numbers = (tbf_ints){.started = false};
    c->doubles = (tbf_doubles){.started = false};
    c->at_first = true;
    c->only_ends = column->points <= 2;
    bool fine = c->kind != TBF_COLUMN_MIXED || (c->v < c->v_end && *c->v <= TBF_COLUMN_FORMS);
    if (fine && c->kind == TBF_COLUMN_MIXED) {
        c->number_kind = *c->v++;
    }
    fine = fine && open_numbers(c) && (!c->has_dictionary || open_dictionary(c));
    c->left = fine ? c->left : 0;
    return fine ? TBF_OK : TBF_ECORRUPT;
}

/* ---- one batch ---- */

static bool next_times(tbf_cursor *c, int64_t *ts, size_t k) {
    int64_t before = c->times.last;
    size_t at = 0;
    if (c->at_first) {
        ts[at++] = before;
        c->at_first = false;
    }
    if (c->only_ends) {
        if (at < k) {
            ts[at] = c->max_ts;
        }
        return true;
    }
    if (at < k) {
        if ((c->t = tbf_ints_get(c->t, c->t_end, &c->times, ts + at, k - at)) == NULL) {
            return false;
        }
        bool wrong = ts[at] <= before;
        for (size_t i = at + 1; i < k; i++) {
            wrong |= ts[i] <= ts[i - 1];
        }
        if (wrong) {
            return false;
        }
    }
    return k < c->left || (ts[k - 1] == c->max_ts && c->t == c->t_end);
}

/* The smallest scale that says the value, down to the floor; at scale 0 an INT64. */
static void fill_by_floor(const tbf_cursor *c, tbf_cell *cells, const int64_t *v, size_t k) {
    for (size_t i = 0; i < k; i++) {
        int64_t mantissa = v[i];
        uint8_t scale = c->scale;
        while (scale > c->floor && mantissa % 10 == 0) {
            mantissa /= 10;
            scale--;
        }
        cells[i].type = scale == 0 ? TBF_INT64 : TBF_DECIMAL;
        cells[i].scale = scale;
        cells[i].i64 = mantissa;
    }
}

static bool fill_by_forms(tbf_cell *cells, const int64_t *v, const int64_t *forms, size_t k) {
    for (size_t i = 0; i < k; i++) {
        if (forms[i] < 0 || forms[i] > 1 + (int64_t)TBF_CHUNK_SCALE_MAX) {
            return false;
        }
        cells[i].type = forms[i] == 0 ? TBF_INT64 : TBF_DECIMAL;
        cells[i].scale = forms[i] == 0 ? 0 : (uint8_t)(forms[i] - 1);
        cells[i].i64 = v[i];
    }
    return true;
}

static bool next_numbers(tbf_cursor *c, tbf_cell *cells, size_t k) {
    int64_t v[TBF_CHUNK_BATCH], forms[TBF_CHUNK_BATCH];
    if (k == 0) {
        return true;
    }
    if (c->number_kind == TBF_COLUMN_FORMS &&
        (c->v = tbf_ints_get(c->v, c->v_end, &c->forms, forms, k)) == NULL) {
        return false;
    }
    if ((c->v = tbf_ints_get(c->v, c->v_end, &c->numbers, v, k)) == NULL) {
        return false;
    }
    if (c->number_kind == TBF_COLUMN_FORMS) {
        return fill_by_forms(cells, v, forms, k);
    }
    if (c->number_kind == TBF_COLUMN_NUMBER) {
        fill_by_floor(c, cells, v, k);
        return true;
    }
    uint8_t type = c->number_kind == TBF_COLUMN_INT64 ? TBF_INT64 : TBF_DECIMAL;
    for (size_t i = 0; i < k; i++) {
        cells[i].type = type;
        cells[i].scale = c->scale;
        cells[i].i64 = v[i];
    }
    return true;
}

static bool next_doubles(tbf_cursor *c, tbf_cell *cells, size_t k) {
    uint64_t v[TBF_CHUNK_BATCH];
    if (k == 0) {
        return true;
    }
    if ((c->v = tbf_doubles_get(c->v, c->v_end, &c->doubles, v, k)) == NULL) {
        return false;
    }
    for (size_t i = 0; i < k; i++) {
        cells[i].type = TBF_DOUBLE;
        cells[i].bits = v[i];
    }
    return true;
}

static bool next_texts(tbf_cursor *c, tbf_cell *cells, size_t k, uint8_t type) {
    int64_t index[TBF_CHUNK_BATCH];
    if (k == 0) {
        return true;
    }
    if (c->has_dictionary && (c->v = tbf_ints_get(c->v, c->v_end, &c->indexes, index, k)) == NULL) {
        return false;
    }
    for (size_t i = 0; i < k; i++) {
        cells[i].type = type;
        if (!c->has_dictionary) {
            if (!take_text(c, &cells[i].p, &cells[i].n)) {
                return false;
            }
        } else if (index[i] < 0 || index[i] >= (int64_t)c->entries) {
            return false;
        } else {
            cells[i].p = c->texts[index[i]].p;
            cells[i].n = c->texts[index[i]].n;
        }
    }
    return true;
}

static bool next_bools(tbf_cursor *c, tbf_cell *cells, size_t k) {
    int64_t v[TBF_CHUNK_BATCH];
    if ((c->v = tbf_ints_get(c->v, c->v_end, &c->classes, v, k)) == NULL) {
        return false;
    }
    for (size_t i = 0; i < k; i++) {
        if (v[i] != 0 && v[i] != 1) {
            return false;
        }
        cells[i].type = v[i] == 0 ? TBF_FALSE : TBF_TRUE;
    }
    return true;
}

static bool next_mixed(tbf_cursor *c, tbf_cell *cells, size_t k) {
    static const uint8_t TYPES[7] = {TBF_INT64,  TBF_DOUBLE, TBF_FALSE, TBF_TRUE,
                                     TBF_STRING, TBF_JSON,   TBF_BYTES};
    int64_t classes[TBF_CHUNK_BATCH];
    tbf_cell numbers[TBF_CHUNK_BATCH], doubles[TBF_CHUNK_BATCH], texts[TBF_CHUNK_BATCH];
    size_t count[7] = {0};
    if ((c->v = tbf_ints_get(c->v, c->v_end, &c->classes, classes, k)) == NULL) {
        return false;
    }
    for (size_t i = 0; i < k; i++) {
        if (classes[i] < 0 || classes[i] > TBF_CLASS_BYTES) {
            return false;
        }
        count[classes[i]]++;
    }
    size_t text_count = count[TBF_CLASS_STRING] + count[TBF_CLASS_JSON] + count[TBF_CLASS_BYTES];
    if (!next_numbers(c, numbers, count[TBF_CLASS_NUMBER]) ||
        !next_doubles(c, doubles, count[TBF_CLASS_DOUBLE]) ||
        !next_texts(c, texts, text_count, 0)) {
        return false;
    }
    const tbf_cell *number = numbers, *real = doubles, *text = texts;
    for (size_t i = 0; i < k; i++) {
        switch (classes[i]) {
        case TBF_CLASS_NUMBER:
            cells[i] = *number++;
            continue;
        case TBF_CLASS_DOUBLE:
            cells[i] = *real++;
            continue;
        case TBF_CLASS_FALSE:
        case TBF_CLASS_TRUE:
            break;
        default:
            cells[i] = *text++;
        }
        cells[i].type = TYPES[classes[i]];
    }
    return true;
}

static bool next_values(tbf_cursor *c, tbf_cell *cells, size_t k) {
    switch (c->kind) {
    case TBF_COLUMN_DOUBLE:
        return next_doubles(c, cells, k);
    case TBF_COLUMN_BOOL:
        return next_bools(c, cells, k);
    case TBF_COLUMN_STRING:
        return next_texts(c, cells, k, TBF_STRING);
    case TBF_COLUMN_JSON:
        return next_texts(c, cells, k, TBF_JSON);
    case TBF_COLUMN_BYTES:
        return next_texts(c, cells, k, TBF_BYTES);
    case TBF_COLUMN_MIXED:
        return next_mixed(c, cells, k);
    default:
        return next_numbers(c, cells, k);
    }
}

/* Keeps the points inside the range; returns how many. */
static size_t cut(const tbf_cursor *c, int64_t *ts, tbf_cell *cells, size_t k) {
    size_t low = 0;
    while (k > 0 && ts[k - 1] > c->to) {
        k--;
    }
    while (low < k && ts[low] < c->from) {
        low++;
    }
    if (low > 0) {
        memmove(ts, ts + low, (k - low) * sizeof *ts);
        memmove(cells, cells + low, (k - low) * sizeof *cells);
    }
    return k - low;
}

tbf_status tbf_cursor_next(tbf_cursor *c, int64_t *ts, tbf_cell *cells, size_t *n) {
    *n = 0;
    while (*n == 0) {
        size_t k = c->left < TBF_CHUNK_BATCH ? c->left : TBF_CHUNK_BATCH;
        if (k == 0) {
            return TBF_MORE;
        }
        if (!next_times(c, ts, k) || !next_values(c, cells, k) ||
            (k == c->left && c->v != c->v_end)) {
            c->left = 0;
            return TBF_ECORRUPT;
        }
        c->left = ts[k - 1] >= c->to ? 0 : c->left - (uint32_t)k;
        *n = cut(c, ts, cells, k);
    }
    return TBF_OK;
}
