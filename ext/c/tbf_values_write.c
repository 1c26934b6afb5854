/* Series chunks: writer of a column's values.  Layout in tbf_chunk.h. */
#include "tbf_values.h"

#define NO_CLASS 255u
#define UNDECIDED 64u /* texts after which a dictionary that is mostly new entries is given up */

const int64_t tbf_powers_of_10[TBF_POWERS_MAX + 1] = {1,
                                                      10,
                                                      100,
                                                      1000,
                                                      10000,
                                                      100000,
                                                      1000000,
                                                      10000000,
                                                      100000000,
                                                      1000000000,
                                                      10000000000,
                                                      100000000000,
                                                      1000000000000,
                                                      10000000000000,
                                                      100000000000000,
                                                      1000000000000000,
                                                      10000000000000000,
                                                      100000000000000000,
                                                      1000000000000000000};

/* By tbf_type. */
static const uint8_t CLASSES[8] = {TBF_CLASS_NUMBER, TBF_CLASS_DOUBLE, TBF_CLASS_FALSE,
                                   TBF_CLASS_TRUE,   TBF_CLASS_STRING, TBF_CLASS_JSON,
                                   TBF_CLASS_BYTES,  TBF_CLASS_NUMBER};

typedef struct {
    uint8_t kind, number_kind;
    uint8_t scale, floor;
    bool has_dictionary;
    tbf_ints classes, forms, numbers, indexes;
    tbf_doubles doubles;
} values;

static bool is_text(const tbf_cell *cell) {
    return cell->type == TBF_STRING || cell->type == TBF_JSON || cell->type == TBF_BYTES;
}

static uint8_t scale_of(const tbf_cell *cell) {
    return cell->type == TBF_DECIMAL ? cell->scale : 0;
}

/* ---- how to write the numbers ---- */

/* Whether every number, at the common scale, says by itself which scale it had. */
static bool fits_floor(const tbf_column *column, uint8_t scale, uint8_t floor) {
    if (scale > TBF_POWERS_MAX) {
        return false;
    }
    for (size_t i = 0; i < column->n; i++) {
        const tbf_cell *cell = &column->cells[i];
        if (CLASSES[cell->type] != TBF_CLASS_NUMBER) {
            continue;
        }
        uint8_t own = scale_of(cell);
        int64_t scaled;
        if ((own > floor && cell->i64 % 10 == 0) || (own == 0 && cell->type == TBF_DECIMAL) ||
            __builtin_mul_overflow(cell->i64, tbf_powers_of_10[scale - own], &scaled)) {
            return false;
        }
    }
    return true;
}

static void plan_numbers(values *s, const tbf_column *column) {
    uint8_t low = UINT8_MAX, high = 0;
    size_t integers = 0, decimals = 0;
    for (size_t i = 0; i < column->n; i++) {
        const tbf_cell *cell = &column->cells[i];
        if (cell->type == TBF_INT64) {
            integers++;
            low = 0;
        } else if (cell->type == TBF_DECIMAL) {
            decimals++;
            low = cell->scale < low ? cell->scale : low;
            high = cell->scale > high ? cell->scale : high;
        }
    }
    s->scale = high;
    s->floor = low;
    if (decimals == 0) {
        s->number_kind = TBF_COLUMN_INT64;
    } else if (integers == 0 && low == high) {
        s->number_kind = TBF_COLUMN_DECIMAL;
    } else {
        s->number_kind =
            fits_floor(column, high, low) ? TBF_COLUMN_NUMBER : TBF_COLUMN_FORMS;
    }
}

/* ---- dictionary ---- */

/* The slot of a text: its own, or the free one where it belongs. */
static size_t slot_of(const tbf_chunk_scratch *scratch, const tbf_cell *cell) {
    size_t slot = tbf_hash(cell->p, cell->n, scratch->seed) % TBF_DICTIONARY_SLOTS;
    for (;; slot = (slot + 1) % TBF_DICTIONARY_SLOTS) {
        if (scratch->slots[slot] == 0) {
            return slot;
        }
        const tbf_span *text = &scratch->texts[scratch->slots[slot] - 1];
        if (text->n == cell->n && tbf_same_bytes(text->p, cell->p, cell->n)) {
            return slot;
        }
    }
}

static bool same_text(const tbf_cell *a, const tbf_cell *b) {
    return a != NULL && a->n == b->n && tbf_same_bytes(a->p, b->p, a->n);
}

static size_t index_bytes(size_t entries, size_t texts) {
    unsigned width = entries <= 1 ? 0 : 32 - (unsigned)__builtin_clz((unsigned)entries - 1);
    return tbf_bits_bytes(width, texts) + 4 * (texts / TBF_CHUNK_BATCH + 1);
}

/* Fills the scratch; true if the texts are smaller with a dictionary. */
static bool plan_dictionary(tbf_chunk_scratch *scratch, const tbf_column *column) {
    size_t plain = 0, listed = 1, texts = 0;
    const tbf_cell *before = NULL;
    scratch->entries = 0;
    memset(scratch->slots, 0, sizeof scratch->slots);
    for (size_t i = 0; i < column->n; i++) {
        const tbf_cell *cell = &column->cells[i];
        if (!is_text(cell)) {
            continue;
        }
        size_t bytes = tbf_varint_bytes(cell->n) + cell->n;
        plain += bytes;
        texts++;
        if (same_text(before, cell)) {
            continue;
        }
        before = cell;
        size_t slot = slot_of(scratch, cell);
        if (scratch->slots[slot] != 0) {
            continue;
        }
        if (scratch->entries == TBF_DICTIONARY_MAX ||
            (texts >= UNDECIDED && scratch->entries > texts - texts / 4)) {
            return false;
        }
        scratch->texts[scratch->entries] = (tbf_span){cell->p, cell->n};
        scratch->slots[slot] = (uint16_t)++scratch->entries;
        listed += bytes;
    }
    return listed + index_bytes(scratch->entries, texts) < plain;
}

static tbf_status put_text(uint8_t **p, const uint8_t *end, tbf_span text) {
    if ((size_t)(end - *p) < TBF_VARINT_MAX ||
        (size_t)(end - *p) - TBF_VARINT_MAX < text.n) {
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

static uint8_t *put_numbers(uint8_t *p, values *s, const tbf_cell *cells, size_t k) {
    int64_t v[TBF_CHUNK_BATCH], forms[TBF_CHUNK_BATCH];
    size_t n = 0;
    if (s->kind <= TBF_COLUMN_DECIMAL) {
        for (; n < k; n++) {
            v[n] = cells[n].i64;
        }
        return tbf_ints_put(p, &s->numbers, v, n);
    }
    for (size_t i = 0; i < k; i++) {
        const tbf_cell *cell = &cells[i];
        if (CLASSES[cell->type] != TBF_CLASS_NUMBER) {
            continue;
        }
        forms[n] = cell->type == TBF_INT64 ? 0 : 1 + (int64_t)cell->scale;
        v[n++] = s->number_kind == TBF_COLUMN_NUMBER
                     ? cell->i64 * tbf_powers_of_10[s->scale - scale_of(cell)]
                     : cell->i64;
    }
    if (n == 0) {
        return p;
    }
    if (s->number_kind == TBF_COLUMN_FORMS) {
        p = tbf_ints_put(p, &s->forms, forms, n);
    }
    return tbf_ints_put(p, &s->numbers, v, n);
}

static uint8_t *put_doubles(uint8_t *p, values *s, const tbf_cell *cells, size_t k) {
    uint64_t v[TBF_CHUNK_BATCH];
    size_t n = 0;
    for (size_t i = 0; i < k; i++) {
        if (cells[i].type == TBF_DOUBLE) {
            v[n++] = cells[i].bits;
        }
    }
    return n == 0 ? p : tbf_doubles_put(p, &s->doubles, v, n);
}

static uint8_t *put_indexes(uint8_t *p, values *s, const tbf_cell *cells, size_t k,
                            const tbf_chunk_scratch *scratch) {
    int64_t v[TBF_CHUNK_BATCH];
    size_t n = 0;
    const tbf_cell *before = NULL;
    for (size_t i = 0; i < k; i++) {
        if (!is_text(&cells[i])) {
            continue;
        }
        v[n] = same_text(before, &cells[i]) ? v[n - 1]
                                            : scratch->slots[slot_of(scratch, &cells[i])] - 1;
        before = &cells[i];
        n++;
    }
    return n == 0 ? p : tbf_ints_put(p, &s->indexes, v, n);
}

static tbf_status put_texts(uint8_t **p, const uint8_t *end, const tbf_cell *cells, size_t k) {
    tbf_status status = TBF_OK;
    for (size_t i = 0; i < k && status == TBF_OK; i++) {
        if (is_text(&cells[i])) {
            status = put_text(p, end, (tbf_span){cells[i].p, cells[i].n});
        }
    }
    return status;
}

/* BOOL writes 0 and 1, MIXED the class itself. */
static uint8_t *put_classes(uint8_t *p, values *s, const tbf_cell *cells, size_t k) {
    int64_t v[TBF_CHUNK_BATCH];
    int64_t base = s->kind == TBF_COLUMN_BOOL ? TBF_CLASS_FALSE : 0;
    for (size_t i = 0; i < k; i++) {
        v[i] = CLASSES[cells[i].type] - base;
    }
    return tbf_ints_put(p, &s->classes, v, k);
}

static tbf_status put_batch(uint8_t **p, const uint8_t *end, values *s, const tbf_cell *cells,
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

/* ---- the column ---- */

/* Most columns: every value of the same type and scale. */
static bool uniform(const tbf_column *column) {
    const tbf_cell *first = column->cells;
    uint32_t differ = 0;
    for (size_t i = 1; i < column->n; i++) {
        differ |= (uint32_t)(first->type ^ column->cells[i].type) |
                  (uint32_t)(first->scale ^ column->cells[i].scale);
    }
    return differ == 0;
}

/* Chooses the kind; false if a cell is not one. */
static bool plan_values(values *s, const tbf_column *column, tbf_chunk_scratch *scratch) {
    size_t count[8] = {0};
    if (column->cells->type == TBF_INT64 && uniform(column)) {
        return true; /* INT64, which is what zero means */
    }
    if (column->cells->type == TBF_DECIMAL && column->cells->scale <= TBF_CHUNK_SCALE_MAX &&
        uniform(column)) {
        s->kind = s->number_kind = TBF_COLUMN_DECIMAL;
        s->scale = column->cells->scale;
        return true;
    }
    for (size_t i = 0; i < column->n; i++) {
        const tbf_cell *cell = &column->cells[i];
        if (cell->type > TBF_DECIMAL ||
            (cell->type == TBF_DECIMAL && cell->scale > TBF_CHUNK_SCALE_MAX)) {
            return false;
        }
        count[cell->type]++;
    }
    size_t n = column->n, numbers = count[TBF_INT64] + count[TBF_DECIMAL];
    size_t texts = count[TBF_STRING] + count[TBF_JSON] + count[TBF_BYTES];
    if (numbers > 0) {
        plan_numbers(s, column);
    }
    s->kind = numbers == n                                  ? s->number_kind
              : count[TBF_DOUBLE] == n                      ? TBF_COLUMN_DOUBLE
              : count[TBF_FALSE] + count[TBF_TRUE] == n     ? TBF_COLUMN_BOOL
              : count[TBF_STRING] == n                      ? TBF_COLUMN_STRING
              : count[TBF_JSON] == n                        ? TBF_COLUMN_JSON
              : count[TBF_BYTES] == n                       ? TBF_COLUMN_BYTES
                                                            : TBF_COLUMN_MIXED;
    s->has_dictionary = texts > 1 && plan_dictionary(scratch, column);
    return true;
}

static uint8_t *put_number_head(uint8_t *p, const values *s) {
    if (s->number_kind == TBF_COLUMN_DECIMAL || s->number_kind == TBF_COLUMN_NUMBER) {
        *p++ = s->scale;
    }
    if (s->number_kind == TBF_COLUMN_NUMBER) {
        *p++ = s->floor;
    }
    return p;
}

tbf_status tbf_values_put(uint8_t **p, uint8_t *end, const tbf_column *column,
                          tbf_chunk_scratch *scratch) {
    values s = {.classes = {.started = true}, .forms = {.started = true},
                .indexes = {.started = true}};
    if (!plan_values(&s, column, scratch)) {
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
