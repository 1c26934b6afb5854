/* Series chunks: writer of a column's values.  Layout in tbf_chunk.h. */
#include "tbf_values.h"

static tbf_status put_text(uint8_t **p, const uint8_t *end, tbf_span text) {
    if ((size_t)(end - *p) < TBF_VARINT_MAX || (size_t)(end - *p) - TBF_VARINT_MAX < text.n) {
        return TBF_ENOSPACE;
    }
    *p = tbf_put_varint(*p, text.n);
    if (text.n > 0) {
        memcpy(*p, text.p, text.n);
    }
    *p += text.n;
    return TBF_OK;
}

static tbf_status put_dictionary(uint8_t **p, const uint8_t *end,
                                 const tbf_chunk_scratch *scratch) {
    if ((size_t)(end - *p) < TBF_VARINT_MAX) {
        return TBF_ENOSPACE;
    }
    *p = tbf_put_varint(*p, scratch->entries);
    tbf_status status = TBF_OK;
    for (size_t i = 0; i < scratch->entries && status == TBF_OK; i++) {
        status = put_text(p, end, scratch->texts[i]);
    }
    return status;
}

/* ---- one batch ---- */

/* Mantissas of the numbers, at the common scale if they have one; returns how many. */
static size_t gather_numbers(const tbf_values *s, int64_t *v, const tbf_cell *cells, size_t k) {
    size_t n = 0;
    switch (s->kind) {
    case TBF_COLUMN_INT64:
    case TBF_COLUMN_DECIMAL:
        for (; n < k; n++) {
            v[n] = cells[n].i64;
        }
        return n;
    case TBF_COLUMN_NUMBER:
        for (; n < k; n++) {
            v[n] = cells[n].i64 * tbf_powers_of_10[s->scale - tbf_scale_of(&cells[n])];
        }
        return n;
    default:
        for (size_t i = 0; i < k; i++) {
            if (tbf_classes[cells[i].type] == TBF_CLASS_NUMBER) {
                int up =
                    s->number_kind == TBF_COLUMN_NUMBER ? s->scale - tbf_scale_of(&cells[i]) : 0;
                v[n++] = cells[i].i64 * tbf_powers_of_10[up];
            }
        }
        return n;
    }
}

static uint8_t *put_forms(uint8_t *p, tbf_values *s, const tbf_cell *cells, size_t k) {
    int64_t v[TBF_CHUNK_BATCH];
    size_t n = 0;
    for (size_t i = 0; i < k; i++) {
        if (tbf_classes[cells[i].type] == TBF_CLASS_NUMBER) {
            v[n++] = cells[i].type == TBF_INT64 ? 0 : 1 + (int64_t)cells[i].scale;
        }
    }
    return tbf_ints_put(p, &s->forms, v, n);
}

static uint8_t *put_numbers(uint8_t *p, tbf_values *s, const tbf_cell *cells, size_t k) {
    int64_t v[TBF_CHUNK_BATCH];
    size_t n = gather_numbers(s, v, cells, k);
    if (n == 0) {
        return p;
    }
    if (s->number_kind == TBF_COLUMN_FORMS) {
        p = put_forms(p, s, cells, k);
    }
    return tbf_ints_put(p, &s->numbers, v, n);
}

static uint8_t *put_doubles(uint8_t *p, tbf_values *s, const tbf_cell *cells, size_t k) {
    uint64_t v[TBF_CHUNK_BATCH];
    size_t n = 0;
    for (size_t i = 0; i < k; i++) {
        if (cells[i].type == TBF_DOUBLE) {
            v[n++] = cells[i].bits;
        }
    }
    return n == 0 ? p : tbf_doubles_put(p, &s->doubles, v, n);
}

static uint8_t *put_indexes(uint8_t *p, tbf_values *s, const tbf_cell *cells, size_t k,
                            const tbf_chunk_scratch *scratch) {
    int64_t v[TBF_CHUNK_BATCH];
    size_t n = 0;
    const tbf_cell *before = NULL;
    for (size_t i = 0; i < k; i++) {
        if (!tbf_is_text(&cells[i])) {
            continue;
        }
        v[n] = tbf_same_text(before, &cells[i])
                   ? v[n - 1]
                   : scratch->slots[tbf_dictionary_slot(scratch, &cells[i])] - 1;
        before = &cells[i];
        n++;
    }
    return n == 0 ? p : tbf_ints_put(p, &s->indexes, v, n);
}

static tbf_status put_texts(uint8_t **p, const uint8_t *end, const tbf_cell *cells, size_t k) {
    tbf_status status = TBF_OK;
    for (size_t i = 0; i < k && status == TBF_OK; i++) {
        if (tbf_is_text(&cells[i])) {
            status = put_text(p, end, (tbf_span){cells[i].p, cells[i].n});
        }
    }
    return status;
}

/* BOOL writes 0 and 1, MIXED the class itself. */
static uint8_t *put_classes(uint8_t *p, tbf_values *s, const tbf_cell *cells, size_t k) {
    int64_t v[TBF_CHUNK_BATCH];
    int64_t base = s->kind == TBF_COLUMN_BOOL ? TBF_CLASS_FALSE : 0;
    for (size_t i = 0; i < k; i++) {
        v[i] = tbf_classes[cells[i].type] - base;
    }
    return tbf_ints_put(p, &s->classes, v, k);
}

static tbf_status put_batch(uint8_t **p, const uint8_t *end, tbf_values *s, const tbf_cell *cells,
                            size_t k, const tbf_chunk_scratch *scratch) {
    if ((size_t)(end - *p) < 3 * TBF_INTS_ROOM(k) + TBF_DOUBLES_ROOM(k)) {
        return TBF_ENOSPACE;
    }
    bool mixed = s->kind == TBF_COLUMN_MIXED;
    if (mixed || s->kind == TBF_COLUMN_BOOL) {
        *p = put_classes(*p, s, cells, k);
    }
    if (mixed || s->kind <= TBF_COLUMN_FORMS) {
        *p = put_numbers(*p, s, cells, k);
    }
    if (mixed || s->kind == TBF_COLUMN_DOUBLE) {
        *p = put_doubles(*p, s, cells, k);
    }
    if (s->has_dictionary) {
        *p = put_indexes(*p, s, cells, k, scratch);
    } else if (mixed || s->kind >= TBF_COLUMN_STRING) {
        return put_texts(p, end, cells, k);
    }
    return TBF_OK;
}

static uint8_t *put_number_head(uint8_t *p, const tbf_values *s) {
    if (s->number_kind == TBF_COLUMN_DECIMAL || s->number_kind == TBF_COLUMN_NUMBER) {
        *p++ = s->scale;
    }
    if (s->number_kind == TBF_COLUMN_NUMBER) {
        *p++ = s->floor;
    }
    return p;
}

/* A column of one whole or decimal number, as the general way would write it: with as many series
 * as points it is most of what sealing does. */
static bool put_single(uint8_t **p, const uint8_t *end, const tbf_column *column) {
    const tbf_cell *cell = column->cells;
    bool decimal = cell->type == TBF_DECIMAL;
    if (column->n != 1 || end - *p < 3 + TBF_VARINT_MAX ||
        !(cell->type == TBF_INT64 || (decimal && cell->scale <= TBF_CHUNK_SCALE_MAX))) {
        return false;
    }
    uint8_t *start = *p + 1, *q = start + 1;
    **p = decimal ? TBF_COLUMN_DECIMAL : TBF_COLUMN_INT64;
    if (decimal) {
        *q++ = cell->scale;
    }
    *p = tbf_put_varint(q, tbf_zigzag(cell->i64));
    *start = (uint8_t)(*p - start - 1);
    return true;
}

tbf_status tbf_values_put(uint8_t **p, uint8_t *end, const tbf_column *column,
                          tbf_chunk_scratch *scratch) {
    if (put_single(p, end, column)) {
        return TBF_OK;
    }
    tbf_values s = {
        .classes = {.started = true}, .forms = {.started = true}, .indexes = {.started = true}};
    if (!tbf_values_plan(&s, column, scratch)) {
        return TBF_EMALFORMED;
    }
    if (end - *p < 5) {
        return TBF_ENOSPACE;
    }
    *(*p)++ = s.kind | (s.has_dictionary ? TBF_COLUMN_DICTIONARY : 0);
    uint8_t *start = (*p)++;
    if (s.kind == TBF_COLUMN_MIXED) {
        *(*p)++ = s.number_kind;
    }
    *p = put_number_head(*p, &s);
    tbf_status status = s.has_dictionary ? put_dictionary(p, end, scratch) : TBF_OK;
    for (size_t at = 0; at < column->n && status == TBF_OK; at += TBF_CHUNK_BATCH) {
        size_t k = column->n - at < TBF_CHUNK_BATCH ? column->n - at : TBF_CHUNK_BATCH;
        status = put_batch(p, end, &s, column->cells + at, k, scratch);
    }
    return status != TBF_OK ? status : tbf_close_length(start, p, end);
}
