/* Series chunks: how a column's values are best written.  Layout in tbf_chunk.h. */
#include "tbf_values.h"

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

const uint8_t tbf_classes[8] = {TBF_CLASS_NUMBER, TBF_CLASS_DOUBLE, TBF_CLASS_FALSE,
                                TBF_CLASS_TRUE,   TBF_CLASS_STRING, TBF_CLASS_JSON,
                                TBF_CLASS_BYTES,  TBF_CLASS_NUMBER};

/* ---- how to write the numbers ---- */

/* Whether every number, at the common scale, says by itself which scale it had.  No branch
 * depends on a value: which of 21, 21.5 and 21.45 comes next cannot be predicted. */
static bool fits_floor(const tbf_column *column, uint8_t scale, uint8_t floor) {
    if (scale > TBF_POWERS_MAX) {
        return false;
    }
    bool wrong = false;
    for (size_t i = 0; i < column->n; i++) {
        const tbf_cell *cell = &column->cells[i];
        uint8_t own = tbf_scale_of(cell);
        int64_t scaled;
        bool unlike = ((own > floor) & (cell->i64 % 10 == 0)) |
                      ((own == 0) & (cell->type == TBF_DECIMAL)) |
                      __builtin_mul_overflow(cell->i64, tbf_powers_of_10[scale - own], &scaled);
        wrong |= unlike & (tbf_classes[cell->type] == TBF_CLASS_NUMBER);
    }
    return !wrong;
}

/* What a pass over the cells finds. */
typedef struct {
    unsigned types;    /* 1 << tbf_type, for each there is */
    uint8_t low, high; /* scales; an INT64 has 0 */
} census;

static bool take_census(census *x, const tbf_column *column) {
    unsigned types = 0, unknown = 0;
    uint8_t low = UINT8_MAX, high = 0;
    for (size_t i = 0; i < column->n; i++) {
        const tbf_cell *cell = &column->cells[i];
        bool decimal = cell->type == TBF_DECIMAL;
        uint8_t low_if = decimal ? cell->scale : UINT8_MAX, high_if = decimal ? cell->scale : 0;
        unknown |= cell->type;
        types |= 1u << (cell->type & 7);
        low = low_if < low ? low_if : low;
        high = high_if > high ? high_if : high;
    }
    *x = (census){.types = types, .low = types >> TBF_INT64 & 1 ? 0 : low, .high = high};
    return unknown <= TBF_DECIMAL && high <= TBF_CHUNK_SCALE_MAX;
}

static void plan_numbers(tbf_values *s, const census *x, const tbf_column *column) {
    s->scale = x->high;
    s->floor = x->low;
    if ((x->types >> TBF_DECIMAL & 1) == 0) {
        s->number_kind = TBF_COLUMN_INT64;
    } else if ((x->types >> TBF_INT64 & 1) == 0 && x->low == x->high) {
        s->number_kind = TBF_COLUMN_DECIMAL;
    } else {
        s->number_kind = fits_floor(column, x->high, x->low) ? TBF_COLUMN_NUMBER : TBF_COLUMN_FORMS;
    }
}

/* ---- dictionary ---- */

size_t tbf_dictionary_slot(const tbf_chunk_scratch *scratch, const tbf_cell *cell) {
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
        if (!tbf_is_text(cell)) {
            continue;
        }
        size_t bytes = tbf_varint_bytes(cell->n) + cell->n;
        plain += bytes;
        texts++;
        if (tbf_same_text(before, cell)) {
            continue;
        }
        before = cell;
        size_t slot = tbf_dictionary_slot(scratch, cell);
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

/* ---- the column ---- */

#define TEXTS (1u << TBF_STRING | 1u << TBF_JSON | 1u << TBF_BYTES)

static uint8_t kind_of(unsigned types, uint8_t number_kind) {
    static const struct {
        unsigned types;
        uint8_t kind;
    } PURE[5] = {{1u << TBF_DOUBLE, TBF_COLUMN_DOUBLE},
                 {1u << TBF_FALSE | 1u << TBF_TRUE, TBF_COLUMN_BOOL},
                 {1u << TBF_STRING, TBF_COLUMN_STRING},
                 {1u << TBF_JSON, TBF_COLUMN_JSON},
                 {1u << TBF_BYTES, TBF_COLUMN_BYTES}};
    if ((types & ~(1u << TBF_INT64 | 1u << TBF_DECIMAL)) == 0) {
        return number_kind;
    }
    for (size_t i = 0; i < 5; i++) {
        if ((types & ~PURE[i].types) == 0) {
            return PURE[i].kind;
        }
    }
    return TBF_COLUMN_MIXED;
}

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

bool tbf_values_plan(tbf_values *s, const tbf_column *column, tbf_chunk_scratch *scratch) {
    if (column->cells->type == TBF_INT64 && uniform(column)) {
        return true; /* INT64, which is what zero means */
    }
    if (column->cells->type == TBF_DECIMAL && column->cells->scale <= TBF_CHUNK_SCALE_MAX &&
        uniform(column)) {
        s->kind = s->number_kind = TBF_COLUMN_DECIMAL;
        s->scale = column->cells->scale;
        return true;
    }
    census x;
    if (!take_census(&x, column)) {
        return false;
    }
    plan_numbers(s, &x, column);
    s->kind = kind_of(x.types, s->number_kind);
    s->has_dictionary = (x.types & TEXTS) != 0 && plan_dictionary(scratch, column);
    return true;
}
