/* libFuzzer target: Protobuf payloads by a schema.  Byte 0 chooses options and schema; with its top
 * bit set the schema itself comes from the input (tbf_proto_load must refuse what it cannot trust).
 *
 *   deploy/fuzz.sh ext/fuzz/fuzz_proto.c
 *
 * Beyond memory safety it checks: a refused payload leaves nothing behind; what is printed is
 * what JSON would make the same rows of. */
#include "tbf_block.h"
#include "tbf_proto.h"
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

/* message M { optional int64 ts = 1; M values = 2; } and one field of every kind beside. */
typedef struct {
    tbf_proto_head head;
    tbf_proto_message messages[2];
    tbf_proto_field fields[22];
    tbf_proto_enum enums[1];
    tbf_proto_value values[1];
    uint8_t names[24];
} schema;

static schema fixed = {.head = {TBF_PROTO_MAGIC, 0, 2, 22, 0, 1, 1, 24},
                       .messages = {{0, 20, 0, 0, 1, 0}, {20, 2, 0, 0, 0, TBF_PROTO_ENTRY}},
                       .enums = {{0, 1}},
                       .values = {{0, 0, 4}},
                       .names = {"abcdefghijklmnopqrstuvwx"}};

static void check(bool holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "broken: %s\n", what);
        abort();
    }
}

static tbf_span fixed_schema(bool repeated) {
    for (uint32_t i = 0; i < 20; i++) {
        uint32_t kind = i < 18 ? i + 1 : TBF_PROTO_MESSAGE;
        kind = kind == 10 ? TBF_PROTO_STRING : kind;
        bool message = kind == TBF_PROTO_MESSAGE;
        uint32_t flags = repeated ? TBF_PROTO_REPEATED : message ? TBF_PROTO_PRESENCE : 0;
        fixed.fields[i] = (tbf_proto_field){i + 1, kind, flags, i == 19, i, 1, !repeated && i < 4};
    }
    fixed.fields[19].flags = TBF_PROTO_REPEATED;
    fixed.fields[20] = (tbf_proto_field){1, TBF_PROTO_STRING, 0, 0, 0, 1, 0};
    fixed.fields[21] = (tbf_proto_field){2, TBF_PROTO_MESSAGE, TBF_PROTO_PRESENCE, 0, 1, 1, 0};
    return (tbf_span){(const uint8_t *)&fixed, sizeof fixed};
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

static tbf_status append(tbf_batch *b, const tbf_proto_table *t, tbf_kind kind, tbf_span payload,
                         const tbf_json_opts *o, tbf_json_result *r) {
    for (;;) {
        size_t len = b->len, cap = b->cap;
        tbf_status status = t != NULL ? tbf_proto_rows(b, t, 7, kind, 1000, payload, o, r)
                            : kind == TBF_KIND_TELEMETRY
                                ? tbf_json_telemetry(b, 7, 1000, payload, o, r)
                                : tbf_json_attributes(b, 7, 1000, payload, o, r);
        check(b->cap == cap, "scratch memory given back");
        if (status == TBF_OK) {
            return status;
        }
        check(b->len == len, "nothing left of a refused payload");
        if (status != TBF_ENOSPACE) {
            check(status == TBF_EREJECT && r->error != NULL, "refusal has words");
            return status;
        }
        check(cap < 1u << 28, "memory is bounded");
        b->cap = cap * 2;
        b->buf = realloc(b->buf, b->cap);
        check(b->buf != NULL, "memory for the batch");
    }
}

static void compare(const tbf_proto_table *t, tbf_kind kind, tbf_span payload,
                    const tbf_json_opts *o) {
    tbf_batch b = new_batch(64);
    tbf_json_result r;
    tbf_status rows = append(&b, t, kind, payload, o, &r);
    size_t cap = 64, n = 0, len = b.len;
    uint8_t *text = NULL, *before = b.buf;
    const char *error = NULL;
    tbf_status printed;
    do {
        cap *= 2;
        free(text);
        text = malloc(cap);
        printed = tbf_proto_print(t, payload, text, cap, &n, &error);
    } while (printed == TBF_ENOSPACE);
    if (printed == TBF_OK) {
        tbf_batch other = new_batch(64);
        tbf_json_result s;
        check(append(&other, NULL, kind, (tbf_span){text, n}, o, &s) == rows, "JSON agrees");
        check(other.len == len && memcmp(other.buf, before, len) == 0, "with the same rows");
        free(other.buf);
    } else {
        check(rows == TBF_EREJECT && error != NULL, "what cannot be printed is refused");
    }
    free(text);
    free(before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1) {
        return 0;
    }
    const uint8_t how = data[0];
    tbf_span rest = {data + 1, n - 1};
    tbf_span bytes = fixed_schema((how & 1) != 0);
    uint8_t *aligned = NULL;
    if ((how & 128) != 0 && rest.n >= 2) {
        size_t size = (size_t)(rest.p[0] << 8 | rest.p[1]);
        rest = (tbf_span){rest.p + 2, rest.n - 2};
        size = size < rest.n ? size : rest.n;
        aligned = malloc(size + 1);
        memcpy(aligned, rest.p, size);
        bytes = (tbf_span){aligned, size};
        rest = (tbf_span){rest.p + size, rest.n - size};
    }
    tbf_proto_table t = {0};
    if (tbf_proto_load(bytes, &t) == TBF_OK) {
        t.max_depth = 6;
        t.max_fields = 1000;
        t.max_printed = 1u << 16;
        const tbf_json_opts o = {.max_depth = (how & 2) != 0 ? 255 : 4,
                                 .max_keys = 10000,
                                 .max_string = (how & 4) != 0 ? 0 : 5,
                                 .type_cast = (how & 8) != 0,
                                 .max_plain = 4096};
        tbf_kind kind = (how & 16) != 0 ? TBF_KIND_CLIENT_ATTR : TBF_KIND_TELEMETRY;
        compare(&t, kind, rest, &o);
    } else {
        check(aligned != NULL, "the fixed schema is good");
    }
    free(aligned);
    return 0;
}
