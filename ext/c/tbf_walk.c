/* See tbf_walk.h. */
#include "tbf_walk.h"

#define PUBLISH_QOS_MASK 0x06u
#define PUBACK 4u

static const char V1_TELEMETRY[] = "v1/devices/me/telemetry";
static const char V2_TELEMETRY[] = "v2/t";

tbf_status tbf_group_note(tbf_group *g, tbf_session *s, uint32_t slot, uint8_t ack_type,
                          uint16_t packet_id, uint32_t read_us) {
    if (g->ack_count == g->ack_cap || g->touched_count == g->touched_cap) {
        return TBF_ENOSPACE;
    }
    if (s->group != g->serial) {
        s->group = g->serial;
        s->touched_at = g->touched_count;
        g->touched[g->touched_count++] = (tbf_touched){.slot = slot, .generation = s->generation};
    }
    g->messages++;
    if (ack_type == 0) {
        return TBF_OK;
    }
    tbf_touched *t = &g->touched[s->touched_at];
    uint32_t index = ++g->ack_count; /* + 1 */
    g->acks[index - 1] = (tbf_owed){.read_us = read_us, .packet_id = packet_id, .type = ack_type};
    if (t->first == 0) {
        t->first = index;
    } else {
        g->acks[t->last - 1].next = index;
    }
    t->last = index;
    t->count++;
    s->awaiting++;
    return TBF_OK;
}

static bool is_telemetry(const tbf_session *s, const uint8_t *topic, size_t n) {
    if (TBF_UNLIKELY(s->topic != NULL)) {
        if (n == s->topic_n && n > 0 && memcmp(topic, s->topic, n) == 0) {
            return true;
        }
    } else if (n == sizeof V1_TELEMETRY - 1 && memcmp(topic, V1_TELEMETRY, n) == 0) {
        return true;
    }
    return s->takes_v2 && n == sizeof V2_TELEMETRY - 1 && memcmp(topic, V2_TELEMETRY, n) == 0;
}

typedef struct {
    tbf_span payload;
    uint16_t packet_id;
    uint8_t qos;
    size_t total;
} plain_publish;

/* Whether a complete plain PUBLISH stands at p.  TBF_MORE: not complete; anything but TBF_OK and
 * TBF_MORE: the engine decides what it is. */
static tbf_status take_plain(const uint8_t *p, size_t n, size_t max_remaining, const tbf_session *s,
                             plain_publish *out) {
    if (n < 2) {
        return TBF_MORE;
    }
    uint8_t qos = (uint8_t)((p[0] & PUBLISH_QOS_MASK) >> 1);
    if ((p[0] & 0xF0) != 0x30 || qos > 1 || (qos == 0 && (p[0] & 0x08) != 0)) {
        return TBF_EREJECT;
    }
    size_t remaining = 0, at = 1;
    for (unsigned shift = 0;; shift += 7) {
        if (shift > 21) {
            return TBF_EREJECT;
        }
        if (at == n) {
            return TBF_MORE;
        }
        remaining |= (size_t)(p[at] & 0x7F) << shift;
        if (p[at++] < 0x80) {
            break;
        }
    }
    if (remaining > max_remaining) {
        return TBF_EREJECT;
    }
    if (n - at < remaining) {
        return TBF_MORE;
    }
    size_t left = remaining;
    const uint8_t *q = p + at;
    if (left < 2) {
        return TBF_EREJECT;
    }
    size_t topic_n = (size_t)q[0] << 8 | q[1];
    q += 2;
    left -= 2;
    size_t fixed = topic_n + (qos > 0 ? 2u : 0u) + (s->version == 5 ? 1u : 0u);
    if (left < fixed || !is_telemetry(s, q, topic_n)) {
        return TBF_EREJECT;
    }
    q += topic_n;
    out->packet_id = 0;
    if (qos > 0) {
        out->packet_id = (uint16_t)(q[0] << 8 | q[1]);
        q += 2;
        if (out->packet_id == 0) {
            return TBF_EREJECT;
        }
    }
    if (s->version == 5 && *q++ != 0) {
        return TBF_EREJECT;
    }
    out->payload = (tbf_span){q, left - fixed};
    out->qos = qos;
    out->total = at + remaining;
    return TBF_OK;
}

tbf_walk_end tbf_walk(const tbf_walk_context *c, tbf_session *s, uint32_t slot, const uint8_t *p,
                      size_t n, size_t *used) {
    size_t at = 0;
    tbf_walk_end end = TBF_WALK_DONE;
    while (at < n) {
        plain_publish pub;
        tbf_status status = take_plain(p + at, n - at, c->max_remaining, s, &pub);
        if (status != TBF_OK) {
            end = status == TBF_MORE ? TBF_WALK_DONE : TBF_WALK_UNUSUAL;
            break;
        }
        if (c->batch->len >= c->rows_limit || c->group->ack_count >= TBF_GROUP_ACKS) {
            end = TBF_WALK_GROUP_FULL;
            break;
        }
        if (c->group->ack_count == c->group->ack_cap ||
            c->group->touched_count == c->group->touched_cap) {
            end = TBF_WALK_GROW;
            break;
        }
        tbf_json_result result;
        tbf_mark mark;
        uint32_t records = c->batch->record_count;
        if (TBF_UNLIKELY(c->rates != NULL)) {
            mark = tbf_batch_mark(c->batch);
        }
        if (s->proto == NULL) {
            status =
                tbf_json_telemetry(c->batch, s->device, c->wall_ms, pub.payload, c->json, &result);
        } else {
            status = tbf_proto_rows(c->batch, s->proto, s->device, TBF_KIND_TELEMETRY, c->wall_ms,
                                    pub.payload, c->json, &result);
        }
        if (TBF_UNLIKELY(status != TBF_OK)) {
            end = status == TBF_ENOSPACE ? TBF_WALK_GROW : TBF_WALK_UNUSUAL;
            break;
        }
        if (TBF_UNLIKELY(c->rates != NULL) &&
            !tbf_rate_message(c->rates, (tbf_rate_scope)s->scope, s->device, result.points,
                              c->mono_ns, c->refusal)) {
            tbf_batch_rollback(c->batch, &mark);
            end = TBF_WALK_LIMITED;
            break;
        }
        c->group->bad_utf8 += result.bad_utf8;
        /* Room was checked above, so that rows never exist without their acknowledgement. */
        (void)tbf_group_note(c->group, s, slot, pub.qos > 0 ? PUBACK : 0, pub.packet_id,
                             c->read_us);
        s->active_ms = c->mono_ms;
        s->quiet |= c->batch->record_count == records;
        at += pub.total;
    }
    *used = at;
    return end;
}
