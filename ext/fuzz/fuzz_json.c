/* libFuzzer target: the telemetry JSON scanner.  Byte 0 chooses the options, the rest is payload.
 *
 *   clang -std=c11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Iext/c \
 *       -o build/fuzz/json ext/fuzz/fuzz_json.c ext/c/tbf_*.c
 *   build/fuzz/json -dict=ext/fuzz/json.dict build/fuzz/corpus/fuzz_json ext/fuzz/corpus/json
 *
 * Beyond memory safety it checks: a refused payload leaves nothing behind; what was stored reads
 * back as that many records and points; stored JSON text is strict and compact, so that scanning
 * it again gives the same bytes. */
#include "tbf_block.h"
#include "tbf_json.h"
#include <stdio.h>
#include <stdlib.h>

#define MAX_KEYS 8u /* few, so that names travel inline as well */
#define SLOTS 16u

static uint32_t slots[SLOTS];
static tbf_key keys[MAX_KEYS + 1];
static uint8_t names[1024];
static tbf_inline_slot inline_slots[TBF_INLINE_SLOTS];
static tbf_keys table = {.seed = {1, 2},
                         .slots = slots,
                         .slot_mask = SLOTS - 1,
                         .keys = keys,
                         .cap = MAX_KEYS,
                         .names = names,
                         .names_cap = sizeof names};

static void check(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "broken: %s\n", what);
        abort();
    }
}

/* Appends, growing the buffer as asked. */
static tbf_status append(tbf_batch *b, bool attributes, tbf_span payload, const tbf_json_opts *o,
                         tbf_json_result *r) {
    for (;;) {
        size_t len = b->len, cap = b->cap;
        uint32_t key_count = b->keys->count;
        tbf_status status =
            (attributes ? tbf_json_attributes : tbf_json_telemetry)(b, 7, 1000, payload, o, r);
        check(b->cap == cap, "scratch memory given back");
        if (status == TBF_OK) {
            return status;
        }
        check(b->len == len && b->keys->count == key_count, "nothing left of a refused payload");
        if (status != TBF_ENOSPACE) {
            check(status == TBF_EREJECT && r->error != NULL, "refusal has words");
            check(r->error_at <= payload.n, "error is inside the payload");
            return status;
        }
        check(cap < payload.n * 64 + 65536, "memory is linear in the payload");
        b->cap = cap * 2;
        b->buf = realloc(b->buf, b->cap);
        check(b->buf != NULL, "memory for the batch");
    }
}

static tbf_batch new_batch(size_t cap) {
    memset(slots, 0, sizeof slots);
    table.count = table.names_len = table.last = 0;
    tbf_batch b = {.buf = malloc(cap), .cap = cap, .keys = &table, .inline_slots = inline_slots};
    static uint64_t stamp; /* the slots keep theirs from batch to batch */
    b.stamp = stamp += 1u << 20;
    tbf_batch_clear(&b, 0);
    return b;
}

static void check_text(tbf_span text, const tbf_json_opts *o) {
    static uint32_t depth; /* scanning stored text checks no further */
    if (depth > 0) {
        return;
    }
    depth++;
    tbf_json_opts wide = *o;
    wide.max_depth = 255;
    uint8_t *payload = malloc(text.n + 6);
    memcpy(payload, "{\"k\":", 5);
    memcpy(payload + 5, text.p, text.n);
    payload[text.n + 5] = '}';
    tbf_batch b = new_batch(64);
    tbf_json_result r;
    tbf_status status = append(&b, true, (tbf_span){payload, text.n + 6}, &wide, &r);
    check(status == TBF_OK && r.points == 1, "stored JSON can be scanned");
    tbf_span rows = {b.buf, b.len};
    tbf_record record;
    tbf_point point;
    check(tbf_next_record(&rows, 0, &record) == TBF_OK, "stored JSON gives a record");
    check(tbf_next_point(&record.points, &point) == TBF_OK, "stored JSON gives a point");
    check(point.type == TBF_JSON && point.bytes.n == text.n &&
              memcmp(point.bytes.p, text.p, text.n) == 0,
          "stored JSON is compact and strict");
    free(payload);
    free(b.buf);
    depth--;
}

static void read_back(const tbf_batch *b, const tbf_json_opts *o, const tbf_json_result *r) {
    uint8_t *copy = malloc(b->len + 1);
    memcpy(copy, b->buf, b->len);
    tbf_span rows = {copy, b->len};
    tbf_record record;
    uint32_t records = 0, points = 0;
    tbf_status status;
    while ((status = tbf_next_record(&rows, 0, &record)) == TBF_OK) {
        records++;
        tbf_point point;
        while ((status = tbf_next_point(&record.points, &point)) == TBF_OK) {
            points += !point.dead;
            if (!point.dead && point.type == TBF_JSON) {
                check_text(point.bytes, o);
            }
        }
        check(status == TBF_MORE, "points can be read");
    }
    check(status == TBF_MORE, "records can be read");
    check(records == r->records && points == r->points, "counts are true");
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n == 0) {
        return 0;
    }
    uint8_t how = data[0];
    const tbf_json_opts o = {.max_depth = (how & 1) != 0 ? 255 : 4,
                             .max_keys = (how & 2) != 0 ? 10000 : 3,
                             .max_string = (how & 4) != 0 ? 0 : 5,
                             .type_cast = (how & 8) != 0,
                             .max_plain = (how & 16) != 0 ? 4096 : 10};
    tbf_batch b = new_batch(64);
    tbf_json_result r;
    if (append(&b, (how & 32) != 0, (tbf_span){data + 1, n - 1}, &o, &r) == TBF_OK) {
        read_back(&b, &o, &r);
    }
    free(b.buf);
    return 0;
}
