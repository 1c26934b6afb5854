/* libFuzzer target: series chunks.  An even first byte: the rest is a chunk, whose checksum is put
 * right before it is read.  An odd one: the rest is turned into cells, which are written and read.
 *
 * Beyond memory errors it looks for a chunk that is read, written, and then read otherwise. */
#include "tbf_agg.h"
#include "tbf_chunk.h"
#include "tbf_points.h"
#include "tbf_stringify.h"

#include <stdlib.h>

enum { MAX_POINTS = 4096, MAX_COLUMNS = 8 };

static int64_t times[MAX_COLUMNS][MAX_POINTS];
static tbf_cell cells[MAX_COLUMNS][MAX_POINTS];
static tbf_chunk_scratch scratch = {.seed = {1, 2}};

static void insist(bool truth) {
    if (!truth) {
        abort();
    }
}

static void insist_same(const tbf_cell *a, const tbf_cell *b) {
    insist(a->type == b->type);
    if (a->type == TBF_DECIMAL) {
        insist(a->scale == b->scale);
    }
    if (a->type == TBF_INT64 || a->type == TBF_DECIMAL || a->type == TBF_DOUBLE) {
        insist(a->bits == b->bits);
    } else if (a->type != TBF_FALSE && a->type != TBF_TRUE) {
        insist(a->n == b->n && (a->n == 0 || memcmp(a->p, b->p, a->n) == 0));
    }
}

/* Decodes one column into row c; false if it is refused. */
static bool read_column(const tbf_chunk_column *column, size_t c, tbf_column *out) {
    tbf_cursor cursor;
    tbf_agg agg;
    size_t total = 0, n;
    tbf_status status = tbf_cursor_open(&cursor, column, INT64_MIN, INT64_MAX);
    tbf_agg_init(&agg);
    while (status == TBF_OK) {
        status = tbf_cursor_next(&cursor, times[c] + total, cells[c] + total, &n);
        tbf_agg_add(&agg, cells[c] + total, n);
        total += n;
    }
    if (status != TBF_MORE) {
        return false;
    }
    insist(total == column->points && agg.count == total && agg.numbers <= total);
    *out = (tbf_column){column->key, (uint32_t)total, times[c], cells[c]};
    return true;
}

/* Points as text stay within their bound; as strings they are what stringify makes of them. */
static void tell(const tbf_column *column) {
    size_t n = column->n, done = 0, used, all;
    size_t bound = tbf_points_bound(column->cells, n);
    uint8_t *text = malloc(bound + 8), *strings = malloc(bound + 1), *expected = malloc(bound + 8);
    insist(text != NULL && strings != NULL && expected != NULL);
    bool json = false;
    for (size_t i = 0; i < n; i++) {
        json |= column->cells[i].type == TBF_JSON; /* bytes of a fuzzer, not JSON */
    }
    memcpy(text, "{\"k\":[", 6);
    used = tbf_points_text(text + 6, column->ts, column->cells, n, false, &done);
    insist(used <= bound && done <= n);
    if (used > 0 && !json) {
        memcpy(text + 5 + used, "]}", 2);
        insist(tbf_stringify((tbf_span){text, used + 7}, expected, bound + 8, &all) == TBF_OK);
        n = done;
        used = tbf_points_text(strings, column->ts, column->cells, n, true, &done);
        insist(done == n && used + 7 == all && memcmp(strings, expected + 6, used - 1) == 0);
    }
    free(text);
    free(strings);
    free(expected);
}

/* What was written must be read as it was. */
static void round_trip(const tbf_column *columns, size_t count) {
    size_t n, bound = tbf_chunk_bound(columns, count), at;
    uint8_t *out = malloc(bound);
    insist(out != NULL);
    insist(tbf_chunk_write(out, bound, columns, count, &scratch, &n) == TBF_OK && n <= bound);
    uint8_t *exact = malloc(n); /* so that reading past it is seen */
    insist(exact != NULL);
    memcpy(exact, out, n);
    tbf_chunk chunk;
    tbf_chunk_column column;
    insist(tbf_chunk_open((tbf_span){exact, n}, &chunk) == TBF_OK && chunk.columns == count);
    at = chunk.first;
    for (size_t c = 0; c < count; c++) {
        tbf_cursor cursor;
        int64_t ts[TBF_CHUNK_BATCH];
        tbf_cell got[TBF_CHUNK_BATCH];
        size_t k, seen = 0;
        insist(tbf_chunk_next(&chunk, &at, &column) == TBF_OK);
        insist(column.key == columns[c].key && column.points == columns[c].n);
        insist(tbf_cursor_open(&cursor, &column, INT64_MIN, INT64_MAX) == TBF_OK);
        while (tbf_cursor_next(&cursor, ts, got, &k) == TBF_OK) {
            for (size_t i = 0; i < k; i++, seen++) {
                insist(ts[i] == columns[c].ts[seen]);
                insist_same(&got[i], &columns[c].cells[seen]);
            }
        }
        insist(seen == columns[c].n);
    }
    /* Any smaller buffer is refused or enough, never overrun. */
    uint8_t *small = malloc(n / 2 + 1);
    insist(small != NULL);
    insist(tbf_chunk_write(small, n / 2, columns, count, &scratch, &at) == TBF_ENOSPACE);
    free(small);
    free(exact);
    free(out);
}

static void read_chunk(const uint8_t *data, size_t size) {
    tbf_chunk chunk;
    tbf_chunk_column column;
    tbf_column columns[MAX_COLUMNS];
    uint8_t *copy = malloc(size + 1);
    insist(copy != NULL);
    memcpy(copy, data, size);
    if (size > 5) {
        tbf_store32(copy + 1, tbf_crc32c(tbf_crc32c(0, copy, 1), copy + 5, size - 5));
    }
    if (tbf_chunk_open((tbf_span){copy, size}, &chunk) == TBF_OK && chunk.columns <= MAX_COLUMNS) {
        size_t at = chunk.first, c = 0;
        while (tbf_chunk_next(&chunk, &at, &column) == TBF_OK && column.points <= MAX_POINTS &&
               read_column(&column, c, &columns[c])) {
            c++;
        }
        for (size_t i = 0; i < c; i++) {
            tell(&columns[i]);
        }
        if (c > 0) {
            round_trip(columns, c);
        }
    }
    free(copy);
}

static void write_cells(const uint8_t *data, size_t size) {
    tbf_column columns[2] = {{1, 0, times[0], cells[0]}, {2, 0, times[0], cells[0]}};
    uint64_t ts = 0;
    uint32_t n = 0;
    for (; size >= 11 && n < MAX_POINTS; n++, data += 11, size -= 11) {
        ts += 1 + (uint64_t)data[1] * data[1];
        times[0][n] = (int64_t)ts;
        cells[0][n] = (tbf_cell){.type = data[0] & 7, .scale = data[2] % (TBF_CHUNK_SCALE_MAX + 1)};
        memcpy(&cells[0][n].bits, data + 3, 8);
        cells[0][n].bits >>= data[0] >> 3 << 1; /* small values, too */
        if (cells[0][n].type >= TBF_STRING && cells[0][n].type <= TBF_BYTES) {
            cells[0][n].n = data[2] % 9;
            cells[0][n].p = data + 3;
        }
    }
    columns[0].n = columns[1].n = n;
    if (n > 0) {
        tell(&columns[0]);
        round_trip(columns, 2);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 0) {
        (data[0] % 2 == 0 ? read_chunk : write_cells)(data + 1, size - 1);
    }
    return 0;
}
