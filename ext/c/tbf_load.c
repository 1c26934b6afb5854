/* See tbf_load.h. */
#include "tbf_load.h"

#include "tbf_mqtt.h"

static void put_digits(uint8_t *out, size_t digits, uint64_t v) {
    for (size_t i = digits; i > 0; i--) {
        out[i - 1] = (uint8_t)('0' + v % 10);
        v /= 10;
    }
}

size_t tbf_load_stamp(uint8_t *out, const tbf_load_template *t, uint16_t packet_id, uint64_t ts_ms,
                      uint64_t seq) {
    memcpy(out, t->frame, t->n);
    if (t->id_at != 0) {
        out[t->id_at] = (uint8_t)(packet_id >> 8);
        out[t->id_at + 1] = (uint8_t)packet_id;
    }
    if (t->ts_at != 0) {
        put_digits(out + t->ts_at, TBF_LOAD_TS_DIGITS, ts_ms);
    }
    for (size_t i = 0; i < t->value_count; i++) {
        /* A slow ramp per key, as sensors give; 10 keeps the number's width. */
        put_digits(out + t->values[i], TBF_LOAD_VALUE_DIGITS, 10 + (seq / 4 + 13 * i) % 90);
    }
    return t->n;
}

void tbf_load_window_init(tbf_load_window *w, tbf_load_slot *slots, uint16_t capacity) {
    *w = (tbf_load_window){.slots = slots, .capacity = capacity, .limit = capacity};
    for (uint16_t i = capacity; i > 0; i--) {
        slots[i - 1] = (tbf_load_slot){.next = w->free};
        w->free = i;
    }
}

tbf_load_slot *tbf_load_begin(tbf_load_window *w, tbf_load_wait wait) {
    if (w->free == 0 || w->in_flight >= w->limit) {
        return NULL;
    }
    tbf_load_slot *s = &w->slots[w->free - 1];
    w->free = s->next;
    w->in_flight++;
    s->wait = (uint8_t)wait;
    s->marker = false;
    return s;
}

tbf_load_answer tbf_load_answered(tbf_load_window *w, uint8_t type, uint16_t packet_id,
                                  uint8_t reason, tbf_load_slot **slot) {
    if (packet_id == 0 || w->capacity < packet_id) {
        return TBF_LOAD_STRAY;
    }
    tbf_load_slot *s = &w->slots[packet_id - 1];
    uint8_t wanted = s->wait == TBF_LOAD_PUBACK    ? TBF_MQTT_PUBACK
                     : s->wait == TBF_LOAD_PUBREC  ? TBF_MQTT_PUBREC
                     : s->wait == TBF_LOAD_PUBCOMP ? TBF_MQTT_PUBCOMP
                                                   : 0;
    if (type != wanted) {
        return TBF_LOAD_STRAY;
    }
    if (type == TBF_MQTT_PUBREC && reason < 0x80) {
        s->wait = TBF_LOAD_PUBCOMP;
        return TBF_LOAD_RELEASE;
    }
    s->wait = TBF_LOAD_FREE;
    s->next = w->free;
    w->free = packet_id;
    w->in_flight--;
    *slot = s;
    return reason < 0x80 ? TBF_LOAD_DONE : TBF_LOAD_REFUSED;
}
