/* MQTT packets, structs to bytes; contract in tbf_mqtt.h.
 *
 * Each body is written by one function that runs twice: once to count, once to store. */
#include "tbf_mqtt.h"

typedef struct {
    uint8_t *p; /* NULL while counting */
    size_t n;
    bool too_big;
} sink;

typedef void (*body_writer)(sink *s, uint8_t version, const void *in);

static inline void put_u8(sink *s, uint8_t v) {
    if (s->p != NULL) {
        s->p[s->n] = v;
    }
    s->n++;
}

static inline void put_u16(sink *s, uint16_t v) {
    put_u8(s, (uint8_t)(v >> 8));
    put_u8(s, (uint8_t)v);
}

static inline void put_raw(sink *s, tbf_span v) {
    if (s->p != NULL && v.n > 0) {
        memcpy(s->p + s->n, v.p, v.n);
    }
    s->n += v.n;
}

static inline void put_field(sink *s, tbf_span v) {
    s->too_big |= v.n > UINT16_MAX;
    put_u16(s, (uint16_t)v.n);
    put_raw(s, v);
}

static void put_vbi(sink *s, size_t v) {
    s->too_big |= v > TBF_MQTT_REMAINING_MAX;
    while (v >= 0x80) {
        put_u8(s, (uint8_t)(v | 0x80));
        v >>= 7;
    }
    put_u8(s, (uint8_t)v);
}

static inline void put_props(sink *s, uint8_t version, tbf_span props) {
    if (version >= 5) {
        put_vbi(s, props.n);
        put_raw(s, props);
    }
}

static tbf_status put_packet(uint8_t *out, size_t cap, size_t *n, unsigned type, unsigned flags,
                             uint8_t version, body_writer body, const void *in) {
    sink count = {0};
    body(&count, version, in);
    size_t remaining = count.n;
    put_u8(&count, 0);
    put_vbi(&count, remaining);
    *n = count.n;
    if (count.too_big) {
        return TBF_ETOOBIG;
    }
    if (cap < count.n) {
        return TBF_ENOSPACE;
    }
    sink store = {.p = out};
    put_u8(&store, (uint8_t)(type << 4 | flags));
    put_vbi(&store, remaining);
    body(&store, version, in);
    return TBF_OK;
}

static void publish_body(sink *s, uint8_t version, const void *in) {
    const tbf_publish *v = in;
    put_field(s, v->topic);
    if (v->qos > 0) {
        put_u16(s, v->packet_id);
    }
    put_props(s, version, v->props);
    put_raw(s, v->payload);
}

tbf_status tbf_mqtt_put_publish(uint8_t *out, size_t cap, size_t *n, uint8_t version,
                                const tbf_publish *in) {
    unsigned flags = (unsigned)in->dup << 3 | (in->qos & 3u) << 1 | (unsigned)in->retain;
    return put_packet(out, cap, n, TBF_MQTT_PUBLISH, flags, version, publish_body, in);
}

static void connect_body(sink *s, uint8_t version, const void *in) {
    const tbf_connect *v = in;
    const char *name = version == 3 ? "MQIsdp" : "MQTT";
    put_field(s, (tbf_span){(const uint8_t *)name, strlen(name)});
    put_u8(s, version);
    put_u8(s, (uint8_t)((unsigned)v->has_username << 7 | (unsigned)v->has_password << 6 |
                        (unsigned)v->will_retain << 5 | (v->will_qos & 3u) << 3 |
                        (unsigned)v->has_will << 2 | (unsigned)v->clean_start << 1));
    put_u16(s, v->keep_alive);
    put_props(s, version, v->props);
    put_field(s, v->client_id);
    if (v->has_will) {
        put_props(s, version, v->will_props);
        put_field(s, v->will_topic);
        put_field(s, v->will_payload);
    }
    if (v->has_username) {
        put_field(s, v->username);
    }
    if (v->has_password) {
        put_field(s, v->password);
    }
}

tbf_status tbf_mqtt_put_connect(uint8_t *out, size_t cap, size_t *n, const tbf_connect *in) {
    return put_packet(out, cap, n, TBF_MQTT_CONNECT, 0, in->version, connect_body, in);
}

static void connack_body(sink *s, uint8_t version, const void *in) {
    const tbf_connack *v = in;
    put_u8(s, v->session_present);
    put_u8(s, v->reason);
    put_props(s, version, v->props);
}

tbf_status tbf_mqtt_put_connack(uint8_t *out, size_t cap, size_t *n, uint8_t version,
                                const tbf_connack *in) {
    return put_packet(out, cap, n, TBF_MQTT_CONNACK, 0, version, connack_body, in);
}

/* Success without properties is left out, as ThingsBoard does (MQTT spec 1.9). */
static void put_outcome(sink *s, uint8_t version, uint8_t reason, tbf_span props) {
    if (version >= 5 && (reason != 0 || props.n > 0)) {
        put_u8(s, reason);
        put_props(s, version, props);
    }
}

static void ack_body(sink *s, uint8_t version, const void *in) {
    const tbf_ack *v = in;
    put_u16(s, v->packet_id);
    put_outcome(s, version, v->reason, v->props);
}

tbf_status tbf_mqtt_put_acknowledgement(uint8_t *out, size_t cap, size_t *n, uint8_t version,
                                        uint8_t type, const tbf_ack *in) {
    return put_packet(out, cap, n, type, type == TBF_MQTT_PUBREL ? 2 : 0, version, ack_body, in);
}

static void subscribe_body(sink *s, uint8_t version, const void *in) {
    const tbf_subscribe *v = in;
    put_u16(s, v->packet_id);
    put_props(s, version, v->props);
    put_raw(s, v->filters);
}

tbf_status tbf_mqtt_put_subscribe(uint8_t *out, size_t cap, size_t *n, uint8_t version,
                                  uint8_t type, const tbf_subscribe *in) {
    return put_packet(out, cap, n, type, 2, version, subscribe_body, in);
}

static void suback_body(sink *s, uint8_t version, const void *in) {
    const tbf_suback *v = in;
    put_u16(s, v->packet_id);
    put_props(s, version, v->props);
    put_raw(s, v->codes);
}

tbf_status tbf_mqtt_put_suback(uint8_t *out, size_t cap, size_t *n, uint8_t version, uint8_t type,
                               const tbf_suback *in) {
    tbf_suback v = *in;
    if (type == TBF_MQTT_UNSUBACK && version < 5) {
        v.codes.n = 0;
    }
    return put_packet(out, cap, n, type, 0, version, suback_body, &v);
}

static void reason_body(sink *s, uint8_t version, const void *in) {
    const tbf_reason *v = in;
    put_outcome(s, version, v->reason, v->props);
}

tbf_status tbf_mqtt_put_reason(uint8_t *out, size_t cap, size_t *n, uint8_t version, uint8_t type,
                               const tbf_reason *in) {
    return put_packet(out, cap, n, type, 0, version, reason_body, in);
}

static void ping_body(sink *s, uint8_t version, const void *in) {
    (void)s;
    (void)version;
    (void)in;
}

tbf_status tbf_mqtt_put_ping(uint8_t *out, size_t cap, size_t *n, uint8_t type) {
    return put_packet(out, cap, n, type, 0, 0, ping_body, NULL);
}

/* Pieces go through the same two passes, without a fixed header. */
static tbf_status put_piece(uint8_t *out, size_t cap, size_t *n, body_writer body, uint8_t which,
                            const void *in) {
    sink count = {0};
    body(&count, which, in);
    *n = count.n;
    if (count.too_big) {
        return TBF_ETOOBIG;
    }
    if (cap < count.n) {
        return TBF_ENOSPACE;
    }
    sink store = {.p = out};
    body(&store, which, in);
    return TBF_OK;
}

static void filter_piece(sink *s, uint8_t type, const void *in) {
    const tbf_subscription *v = in;
    put_field(s, v->filter);
    if (type == TBF_MQTT_SUBSCRIBE) {
        put_u8(s, v->options);
    }
}

tbf_status tbf_mqtt_put_filter(uint8_t *out, size_t cap, size_t *n, uint8_t type,
                               const tbf_subscription *in) {
    return put_piece(out, cap, n, filter_piece, type, in);
}

static void property_piece(sink *s, uint8_t unused, const void *in) {
    const tbf_property *v = in;
    (void)unused;
    put_u8(s, v->id);
    switch (tbf_mqtt_property_form(v->id)) {
    case TBF_FORM_BYTE:
        s->too_big |= v->number > UINT8_MAX;
        put_u8(s, (uint8_t)v->number);
        break;
    case TBF_FORM_TWO:
        s->too_big |= v->number > UINT16_MAX;
        put_u16(s, (uint16_t)v->number);
        break;
    case TBF_FORM_FOUR:
        put_u16(s, (uint16_t)(v->number >> 16));
        put_u16(s, (uint16_t)v->number);
        break;
    case TBF_FORM_VARIABLE:
        put_vbi(s, v->number);
        break;
    case TBF_FORM_TEXT:
    case TBF_FORM_BINARY:
        put_field(s, v->text);
        break;
    case TBF_FORM_PAIR:
        put_field(s, v->text);
        put_field(s, v->value);
        break;
    case TBF_FORM_NONE:
        break;
    }
}

tbf_status tbf_mqtt_put_property(uint8_t *out, size_t cap, size_t *n, const tbf_property *in) {
    *n = 0;
    if (tbf_mqtt_property_form(in->id) == TBF_FORM_NONE) {
        return TBF_EMALFORMED;
    }
    return put_piece(out, cap, n, property_piece, 0, in);
}
