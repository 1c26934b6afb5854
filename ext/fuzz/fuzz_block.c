/* libFuzzer target: journal blocks.  An even first byte: the rest is a header's numbers,
 * definitions and rows, framed with lengths and checksum that are right.  An odd one: the rest says
 * what is put into a batch, which becomes a block.
 *
 * Beyond memory errors it looks for more records or points than were announced room for, and for
 * rows that come back otherwise than by the rule: of one name in a record the last value counts. */
#include "tbf_block.h"
#include "tbf_out.h"

#include <stdlib.h>

enum { MAX_KEYS = 8, SLOTS = 16, NAMES = 24, OPS = 256, RECORDS = 32, NULL_TYPE = 8 };

static uint32_t slots[SLOTS];
static tbf_key keys[MAX_KEYS + 1];
static uint8_t key_names[1024];
static tbf_inline_slot inline_slots[TBF_INLINE_SLOTS];
static tbf_keys table = {.seed = {1, 2},
                         .slots = slots,
                         .slot_mask = SLOTS - 1,
                         .keys = keys,
                         .cap = MAX_KEYS, /* few, so that names travel inline as well */
                         .names = key_names,
                         .names_cap = sizeof key_names};

static void insist(bool truth) {
    if (!truth) {
        abort();
    }
}

/* Reads every byte, so that one outside is seen. */
static void touch(tbf_span span) {
    for (size_t i = 0; i < span.n; i++) {
        (void)*(volatile const uint8_t *)&span.p[i];
    }
}

static void tell(const tbf_point *point) {
    uint8_t text[TBF_DECIMAL_TEXT];
    if (point->type == TBF_DECIMAL) {
        insist(tbf_decimal_text(text, point->i64, point->scale) <= sizeof text);
    } else if (point->type >= TBF_STRING && point->type <= TBF_BYTES) {
        touch(point->bytes);
        uint8_t *out = malloc(tbf_out_string_bound(point->bytes.n));
        insist(out != NULL);
        insist(tbf_out_string(out, point->bytes) <= tbf_out_string_bound(point->bytes.n));
        insist(tbf_out_base64(out, point->bytes) <= 4 * (point->bytes.n / 3 + 1) + 2);
        free(out);
    }
}

static void read_all(tbf_span bytes) {
    tbf_block block;
    tbf_record record;
    tbf_point point;
    tbf_span name;
    if (tbf_block_open(bytes, &block) != TBF_OK) {
        return;
    }
    insist(block.record_count <= block.rows.n && block.point_count <= block.rows.n);
    while (tbf_next_def(&block.defs, &name) == TBF_OK) {
        touch(name);
    }
    while (tbf_next_record(&block.rows, block.base_ms, &record) == TBF_OK) {
        while (tbf_next_point(&record.points, &point) == TBF_OK) {
            if (point.key == 0) {
                touch(point.name);
            }
            tell(&point);
        }
    }
}

static uint8_t at(const uint8_t *data, size_t n, size_t i) { return i < n ? data[i] : 0; }

/* data: 68 bytes of a header from its journal on, then definitions and rows. */
static void read_block(const uint8_t *data, size_t n) {
    size_t body = n > 68 ? n - 68 : 0;
    size_t defs = n > 68 ? tbf_load32(data + 48) % (body + 1) : 0;
    uint8_t *block = calloc(1, TBF_BLOCK_HEADER + body);
    insist(block != NULL);
    for (size_t i = 0; i < 68; i++) {
        block[8 + i] = at(data, n, i);
    }
    memcpy(block, "TBJB\1\0\x50\0", 8);
    tbf_store32(block + 56, (uint32_t)defs);
    tbf_store32(block + 60, (uint32_t)(body - defs));
    if (body > 0) {
        memcpy(block + TBF_BLOCK_HEADER, data + 68, body);
    }
    uint32_t crc = tbf_crc32c(0, block, 76);
    tbf_store32(block + 76, tbf_crc32c(crc, block + TBF_BLOCK_HEADER, body));
    read_all((tbf_span){block, TBF_BLOCK_HEADER + body});
    free(block);
    /* And as it came: refused, or read. */
    uint8_t *own = malloc(n + 1);
    insist(own != NULL);
    memcpy(own, data, n);
    read_all((tbf_span){own, n});
    free(own);
}

/* ---- rows written and read back ---- */

typedef struct {
    unsigned name, type;
    uint8_t scale;
    uint64_t value;
    const uint8_t *p; /* of texts: at least `value` bytes */
} put;

typedef struct {
    uint64_t device;
    int64_t ts;
    size_t first, n;
} row;

static put puts[OPS];
static row rows[RECORDS];

/* Some are long, some no key that storage takes. */
static tbf_span name_of(unsigned name) {
    static const char LONG[] = "a name that is longer than any word of a machine ";
    static const char LETTERS[] = "abcdefghijklmnopqrstuvwxyz";
    if (name == 0) {
        return (tbf_span){(const uint8_t *)"  ", 2};
    }
    if (name % 5 == 4) {
        return (tbf_span){(const uint8_t *)LONG, 20 + name};
    }
    return (tbf_span){(const uint8_t *)LETTERS + name, 1 + name % 3};
}

static bool same_name(unsigned a, unsigned b) {
    tbf_span x = name_of(a), y = name_of(b);
    return x.n == y.n && memcmp(x.p, y.p, x.n) == 0;
}

static tbf_status put_point(tbf_batch *b, const put *point) {
    tbf_span name = name_of(point->name), text = {point->p, (size_t)point->value};
    double real;
    uint8_t *to;
    tbf_status status;
    switch (point->type) {
    case TBF_INT64:
        return tbf_put_int64(b, name, (int64_t)point->value);
    case TBF_DOUBLE:
        memcpy(&real, &point->value, sizeof real);
        return tbf_put_double(b, name, real);
    case TBF_FALSE:
    case TBF_TRUE:
        return tbf_put_bool(b, name, point->type == TBF_TRUE);
    case TBF_DECIMAL:
        return tbf_put_decimal(b, name, (int64_t)point->value, point->scale);
    case NULL_TYPE:
        return tbf_put_null(b, name);
    case TBF_JSON: /* the piecewise way, with a bound that is too large */
        if ((status = tbf_blob_open(b, name, TBF_JSON, 3 * text.n + 60, &to)) != TBF_OK) {
            return status;
        }
        memcpy(to, text.p, text.n);
        tbf_blob_close(b, text.n);
        return TBF_OK;
    default:
        return tbf_put_blob(b, name, (tbf_type)point->type, text);
    }
}

static bool counts(const row *r, size_t i) {
    for (size_t later = i + 1; later < r->n; later++) {
        if (same_name(puts[r->first + i].name, puts[r->first + later].name)) {
            return false;
        }
    }
    return puts[r->first + i].type != NULL_TYPE;
}

/* Whether a record is stored: it has a value, and none under a name that is refused. */
static bool stored(const row *r) {
    bool any = false;
    for (size_t i = 0; i < r->n; i++) {
        if (counts(r, i)) {
            if (puts[r->first + i].name == 0) {
                return false;
            }
            any = true;
        }
    }
    return any;
}

static void insist_same(const put *expected, const tbf_point *got, tbf_span name) {
    tbf_span known = name_of(expected->name);
    insist(name.n == known.n && memcmp(name.p, known.p, name.n) == 0);
    insist((unsigned)got->type == expected->type);
    switch (got->type) {
    case TBF_INT64:
        insist((uint64_t)got->i64 == expected->value);
        break;
    case TBF_DECIMAL:
        insist((uint64_t)got->i64 == expected->value && got->scale == expected->scale);
        break;
    case TBF_DOUBLE:
        insist(memcmp(&got->f64, &expected->value, sizeof got->f64) == 0);
        break;
    case TBF_FALSE:
    case TBF_TRUE:
        break;
    default:
        insist(got->bytes.n == expected->value);
        insist(memcmp(got->bytes.p, expected->p, got->bytes.n) == 0);
    }
}

static void compare(tbf_span bytes, size_t row_count) {
    tbf_block block;
    tbf_record record;
    tbf_point point;
    tbf_span defs[MAX_KEYS + 1];
    size_t def_count = 0, records = 0, points = 0;
    insist(tbf_block_open(bytes, &block) == TBF_OK);
    while (tbf_next_def(&block.defs, &defs[def_count]) == TBF_OK) {
        def_count++;
        insist(def_count <= MAX_KEYS);
    }
    for (size_t i = 0; i < row_count; i++) {
        const row *r = &rows[i];
        if (!stored(r)) {
            continue;
        }
        records++;
        insist(tbf_next_record(&block.rows, block.base_ms, &record) == TBF_OK);
        insist(record.device == r->device && record.ts_ms == r->ts);
        for (size_t j = 0; j < r->n; j++) {
            if (!counts(r, j)) {
                continue;
            }
            points++;
            do {
                insist(tbf_next_point(&record.points, &point) == TBF_OK);
            } while (point.dead);
            insist(point.key <= def_count);
            insist_same(&puts[r->first + j], &point,
                        point.key == 0 ? point.name : defs[point.key - 1]);
        }
        while (tbf_next_point(&record.points, &point) == TBF_OK) {
            insist(point.dead);
        }
        insist(record.points.n == 0);
    }
    insist(tbf_next_record(&block.rows, block.base_ms, &record) == TBF_MORE);
    insist(block.record_count == records && block.point_count == points);
    read_all(bytes);
}

/* Each record: how (bit 0: taken back) device, time, number of points; each point: name, type and
 * scale, then its value or its text. */
static void write_rows(const uint8_t *data, size_t n) {
    size_t used = 0, row_count = 0, put_count = 0, cap = n > 0 ? 64 + 16 * (size_t)data[0] : 64;
    memset(slots, 0, sizeof slots);
    table.count = table.names_len = table.last = 0;
    tbf_batch b = {.buf = malloc(cap), .cap = cap, .keys = &table, .inline_slots = inline_slots};
    insist(b.buf != NULL);
    static uint64_t stamp; /* the slots keep theirs from batch to batch */
    b.stamp = stamp += 1u << 20;
    tbf_batch_clear(&b, 1000);
    while (n - used >= 4 && row_count < RECORDS) {
        const uint8_t *head = data + used;
        row *r = &rows[row_count];
        size_t wanted = head[3] % 9;
        used += 4;
        *r = (row){.device = (uint64_t)head[1] << (head[0] >> 2 & 31),
                   .ts = (int64_t)((uint64_t)head[2] << (head[0] >> 1 & 63)),
                   .first = put_count};
        tbf_mark mark = tbf_batch_mark(&b);
        tbf_status status = tbf_record_begin(&b, r->device, TBF_KIND_TELEMETRY, r->ts);
        while (status == TBF_OK && wanted-- > 0 && n - used >= 10 && put_count < OPS) {
            put *point = &puts[put_count++];
            *point = (put){.name = data[used] % NAMES,
                           .type = data[used + 1] % 9,
                           .scale = data[used + 1] / 9,
                           .p = data + used + 2};
            memcpy(&point->value, data + used + 2, 8);
            if (point->type >= TBF_STRING && point->type <= TBF_BYTES) {
                point->value = data[used + 2] % (n - used - 1); /* it may overlap with the next */
            }
            used += 10;
            r->n++;
            status = put_point(&b, point);
        }
        status = status != TBF_OK ? status : tbf_record_end(&b);
        insist(b.len <= b.cap);
        if (status != TBF_OK || (head[0] & 1) != 0) {
            tbf_batch_rollback(&b, &mark);
        } else {
            row_count++;
        }
    }
    size_t size = tbf_block_size(&b, 1);
    uint8_t *block = malloc(size);
    insist(block != NULL);
    tbf_block_write(block, &b, 1, 2, 3, 4, 1);
    compare((tbf_span){block, size}, row_count);
    free(block);
    free(b.buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n > 0) {
        (data[0] % 2 == 0 ? read_block : write_rows)(data + 1, n - 1);
    }
    return 0;
}
