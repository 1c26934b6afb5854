/* libFuzzer target: the hot path, from a session's bytes straight to rows.  Byte 0 chooses version
 * and topics; the rest is what the session sent.
 *
 * Beyond memory errors it checks what it took against the slow way: packet by packet, the same rows
 * and the same acknowledgements. */
#include "tbf_mqtt.h"
#include "tbf_walk.h"

#include <stdlib.h>

enum { MAX_REMAINING = 4096, MAX_KEYS = 8, SLOTS = 16, NOW_MS = 1000, DEVICE = 7 };

static const char CUSTOM[] = "own/t";
static const tbf_json_opts OPTS = {
    .max_depth = 16, .max_keys = 100, .type_cast = true, .max_plain = 4096};

typedef struct {
    uint32_t slots[SLOTS];
    tbf_key keys[MAX_KEYS + 1];
    uint8_t names[1024];
    tbf_inline_slot inline_slots[TBF_INLINE_SLOTS];
    tbf_keys table;
    tbf_batch batch;
} rows;

static rows fast, slow;
static uint64_t serial;

static void insist(bool truth) {
    if (!truth) {
        abort();
    }
}

/* The slots keep their stamps from one input to the next. */
static void empty(rows *r) {
    memset(r->slots, 0, sizeof r->slots);
    r->table = (tbf_keys){.seed = {1, 2},
                          .slots = r->slots,
                          .slot_mask = SLOTS - 1,
                          .keys = r->keys,
                          .cap = MAX_KEYS,
                          .names = r->names,
                          .names_cap = sizeof r->names};
    r->batch = (tbf_batch){.buf = malloc(32),
                           .cap = 32,
                           .keys = &r->table,
                           .inline_slots = r->inline_slots,
                           .stamp = serial << 20};
    insist(r->batch.buf != NULL);
    tbf_batch_clear(&r->batch, NOW_MS);
}

static void grow_rows(tbf_batch *b) {
    b->cap *= 2;
    insist(b->cap < 1u << 24);
    b->buf = realloc(b->buf, b->cap);
    insist(b->buf != NULL);
}

static void grow(tbf_group *g, tbf_batch *b) {
    if (g->ack_count == g->ack_cap || g->touched_count == g->touched_cap) {
        g->ack_cap = 2 * g->ack_cap + 1;
        g->touched_cap = 2 * g->touched_cap + 1;
        g->acks = realloc(g->acks, g->ack_cap * sizeof *g->acks);
        g->touched = realloc(g->touched, g->touched_cap * sizeof *g->touched);
        insist(g->acks != NULL && g->touched != NULL);
    } else {
        grow_rows(b);
    }
}

static bool is(tbf_span topic, const char *expected) {
    return topic.n == strlen(expected) && memcmp(topic.p, expected, topic.n) == 0;
}

/* The one packet at p, which the walk took, the slow way; returns its bytes. */
static size_t again(const uint8_t *p, size_t n, const tbf_session *s, const tbf_group *g,
                    uint32_t *ack) {
    tbf_frame frame;
    tbf_publish publish;
    tbf_json_result result;
    tbf_status status;
    insist(tbf_mqtt_frame(p, n, MAX_REMAINING, &frame) == TBF_OK && frame.type == TBF_MQTT_PUBLISH);
    insist(tbf_mqtt_publish(&frame, s->version, &publish) == TBF_OK && publish.qos <= 1);
    insist(publish.props.n == 0);
    insist((s->takes_v2 && is(publish.topic, "v2/t")) ||
           is(publish.topic, s->topic != NULL ? CUSTOM : "v1/devices/me/telemetry"));
    while ((status = tbf_json_telemetry(&slow.batch, DEVICE, NOW_MS, publish.payload, &OPTS,
                                        &result)) == TBF_ENOSPACE) {
        grow_rows(&slow.batch);
    }
    insist(status == TBF_OK);
    if (publish.qos == 1) {
        insist(*ack != 0 && g->acks[*ack - 1].packet_id == publish.packet_id);
        insist(g->acks[*ack - 1].type == TBF_MQTT_PUBACK);
        *ack = g->acks[*ack - 1].next;
    }
    return frame.total;
}

static void walk(tbf_session *s, const uint8_t *p, size_t n) {
    tbf_group group = {.serial = ++serial};
    tbf_walk_end end = TBF_WALK_GROW;
    size_t total = 0, used, at = 0;
    uint64_t messages = 0;
    empty(&fast);
    empty(&slow);
    const tbf_walk_context context = {.batch = &fast.batch,
                                      .group = &group,
                                      .json = &OPTS,
                                      .max_remaining = MAX_REMAINING,
                                      .rows_limit = SIZE_MAX,
                                      .wall_ms = NOW_MS};
    while (end == TBF_WALK_GROW) {
        end = tbf_walk(&context, s, 0, p + total, n - total, &used);
        insist(used <= n - total);
        total += used;
        if (end == TBF_WALK_GROW) {
            grow(&group, &fast.batch);
        }
    }
    insist(end == TBF_WALK_DONE || end == TBF_WALK_UNUSUAL);
    uint32_t ack = group.touched_count > 0 ? group.touched[0].first : 0;
    while (at < total) {
        at += again(p + at, total - at, s, &group, &ack);
        messages++;
    }
    insist(at == total && ack == 0 && messages == group.messages);
    insist(fast.batch.len == slow.batch.len);
    insist(memcmp(fast.batch.buf, slow.batch.buf, fast.batch.len) == 0);
    insist(fast.batch.record_count == slow.batch.record_count);
    insist(s->awaiting == group.ack_count);
    free(group.acks);
    free(group.touched);
    free(fast.batch.buf);
    free(slow.batch.buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n == 0) {
        return 0;
    }
    tbf_session session = {
        .device = DEVICE, .version = 3 + data[0] % 3, .hot = true, .takes_v2 = (data[0] & 64) != 0};
    if ((data[0] & 128) != 0) {
        session.topic = (const uint8_t *)CUSTOM;
        session.topic_n = sizeof CUSTOM - 1;
    }
    uint8_t *copy = malloc(n); /* so that reading past the end is seen */
    insist(copy != NULL);
    memcpy(copy, data + 1, n - 1);
    uint8_t *exact = realloc(copy, n > 1 ? n - 1 : 1);
    insist(exact != NULL);
    walk(&session, exact, n - 1);
    free(exact);
    return 0;
}
