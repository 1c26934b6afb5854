/* MQTT packets, bytes to spans; contract in tbf_mqtt.h. */
#include "tbf_mqtt.h"
#include "tbf_mqtt_read.h"

/* Flags each type demands (MQTT 5 2.1.3); PUBLISH carries its own. */
static const uint8_t FLAGS[16] = {
    [TBF_MQTT_PUBREL] = 2, [TBF_MQTT_SUBSCRIBE] = 2, [TBF_MQTT_UNSUBSCRIBE] = 2};

tbf_status tbf_mqtt_frame(const uint8_t *p, size_t n, size_t max_remaining, tbf_frame *out) {
    out->total = 0;
    if (n == 0) {
        return TBF_MORE;
    }
    uint8_t type = p[0] >> 4, flags = p[0] & 15;
    out->type = type;
    out->flags = flags;
    if (type == TBF_MQTT_PUBLISH ? (flags & 6) == 6 : flags != FLAGS[type] || type == 0) {
        return TBF_EMALFORMED;
    }
    size_t remaining = 0, header = 1;
    for (unsigned shift = 0;; shift += 7) {
        if (n <= header) {
            return TBF_MORE;
        }
        uint8_t byte = p[header++];
        remaining |= (size_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            break;
        }
        if (header == TBF_MQTT_HEADER_MAX) {
            return TBF_EMALFORMED;
        }
    }
    out->total = header + remaining;
    if (remaining > max_remaining) {
        return TBF_ETOOBIG;
    }
    if (remaining != 0 && (type == TBF_MQTT_PINGREQ || type == TBF_MQTT_PINGRESP)) {
        return TBF_EMALFORMED;
    }
    if (n - header < remaining) {
        return TBF_MORE;
    }
    out->body = (tbf_span){p + header, remaining};
    return TBF_OK;
}

/* --- strings ------------------------------------------------------------------------------ */

#define ONES 0x0101010101010101u
#define HIGHS 0x8080808080808080u
/* Non-zero if any of the eight bytes is zero. */
static inline uint64_t zero_byte(uint64_t v) { return (v - ONES) & ~v & HIGHS; }

/* Bytes of the well-formed non-ASCII sequence at p (n > 0), or 0 (Unicode 15 table 3-7). */
static size_t sequence(const uint8_t *p, size_t n) {
    uint8_t lead = p[0], low = 0x80, high = 0xBF;
    size_t want;
    if (lead >= 0xC2 && lead <= 0xDF) {
        want = 2;
    } else if (lead >= 0xE0 && lead <= 0xEF) {
        want = 3;
        low = lead == 0xE0 ? 0xA0 : 0x80;
        high = lead == 0xED ? 0x9F : 0xBF; /* above: a surrogate */
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        want = 4;
        low = lead == 0xF0 ? 0x90 : 0x80;
        high = lead == 0xF4 ? 0x8F : 0xBF;
    } else {
        return 0;
    }
    if (n < want || p[1] < low || p[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < want; i++) {
        if ((p[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    return want;
}

static inline bool scan(tbf_span s, bool topic) {
    const uint8_t *p = s.p;
    size_t n = s.n;
    while (n > 0) {
        if (n >= 8) {
            uint64_t v = tbf_load64(p), odd = (v & HIGHS) | zero_byte(v);
            if (topic) {
                odd |= zero_byte(v ^ ONES * '+') | zero_byte(v ^ ONES * '#');
            }
            if (TBF_LIKELY(odd == 0)) {
                p += 8;
                n -= 8;
                continue;
            }
        }
        size_t step = 1;
        if (*p >= 0x80) {
            step = sequence(p, n);
        } else if (*p == 0 || (topic && (*p == '+' || *p == '#'))) {
            return false;
        }
        if (step == 0) {
            return false;
        }
        p += step;
        n -= step;
    }
    return true;
}

bool tbf_mqtt_is_text(tbf_span s) { return scan(s, false); }
bool tbf_mqtt_is_topic(tbf_span s) { return scan(s, true); }

/* A string field that must be text. */
static bool take_text(tbf_span *at, tbf_span *out) {
    return tbf_take_field(at, out) && tbf_mqtt_is_text(*out);
}

static bool take_packet_id(tbf_span *at, uint16_t *out) {
    return tbf_take_u16(at, out) && *out != 0;
}

/* The property block of a version that has one; an empty span otherwise. */
static tbf_status take_props(tbf_span *at, uint8_t version, uint8_t type, tbf_span *out) {
    *out = (tbf_span){at->p, 0};
    return version < 5 ? TBF_OK : tbf_mqtt_props(at, type, out, NULL);
}

/* --- bodies ------------------------------------------------------------------------------- */

tbf_status tbf_mqtt_publish(const tbf_frame *f, uint8_t version, tbf_publish *out) {
    tbf_span at = f->body;
    out->retain = f->flags & 1;
    out->qos = f->flags >> 1 & 3;
    out->dup = f->flags >> 3;
    out->packet_id = 0;
    out->topic_alias = 0;
    out->props = (tbf_span){at.p, 0};
    if (!tbf_take_field(&at, &out->topic) || !tbf_mqtt_is_topic(out->topic) ||
        (out->qos > 0 && !take_packet_id(&at, &out->packet_id))) {
        return TBF_EMALFORMED;
    }
    if (version >= 5) {
        if (tbf_mqtt_props(&at, TBF_MQTT_PUBLISH, &out->props, &out->topic_alias) != TBF_OK) {
            return TBF_EMALFORMED;
        }
    } else if (out->topic.n == 0) {
        return TBF_EMALFORMED;
    }
    out->payload = at;
    return TBF_OK;
}

static bool take_will(tbf_span *at, tbf_connect *out) {
    out->will_props = (tbf_span){at->p, 0};
    if (out->version >= 5 && tbf_mqtt_props(at, TBF_MQTT_WILL, &out->will_props, NULL) != TBF_OK) {
        return false;
    }
    return take_text(at, &out->will_topic) && tbf_take_field(at, &out->will_payload);
}

/* Connect flags (MQTT 5 3.1.2.3). */
static bool take_connect_flags(tbf_span *at, tbf_connect *out) {
    uint8_t flags;
    if (!tbf_take_u8(at, &flags)) {
        return false;
    }
    out->has_username = flags >> 7 & 1;
    out->has_password = flags >> 6 & 1;
    out->will_retain = flags >> 5 & 1;
    out->will_qos = flags >> 3 & 3;
    out->has_will = flags >> 2 & 1;
    out->clean_start = flags >> 1 & 1;
    /* 3.1 calls bit 0 unused where the later versions reserve it. */
    bool reserved = (flags & 1) != 0 && out->version > 3;
    bool stray = !out->has_will && (out->will_retain || out->will_qos != 0);
    return !reserved && !stray && out->will_qos != 3;
}

tbf_status tbf_mqtt_connect(const tbf_frame *f, tbf_connect *out) {
    tbf_span at = f->body, name;
    *out = (tbf_connect){0};
    if (!tbf_take_field(&at, &name) || !tbf_take_u8(&at, &out->version)) {
        return TBF_EMALFORMED;
    }
    const char *known = out->version == 3 ? "MQIsdp" : "MQTT";
    if (out->version < 3 || out->version > 5 || name.n != strlen(known) ||
        memcmp(name.p, known, name.n) != 0) {
        return TBF_EPROTOCOL;
    }
    if (!take_connect_flags(&at, out) || !tbf_take_u16(&at, &out->keep_alive) ||
        take_props(&at, out->version, TBF_MQTT_CONNECT, &out->props) != TBF_OK ||
        !take_text(&at, &out->client_id) || (out->has_will && !take_will(&at, out)) ||
        (out->has_username && !take_text(&at, &out->username)) ||
        (out->has_password && !tbf_take_field(&at, &out->password))) {
        return TBF_EMALFORMED;
    }
    return at.n == 0 ? TBF_OK : TBF_EMALFORMED;
}

tbf_status tbf_mqtt_connack(const tbf_frame *f, uint8_t version, tbf_connack *out) {
    tbf_span at = f->body;
    uint8_t flags;
    if (!tbf_take_u8(&at, &flags) || flags > 1 || !tbf_take_u8(&at, &out->reason) ||
        take_props(&at, version, TBF_MQTT_CONNACK, &out->props) != TBF_OK) {
        return TBF_EMALFORMED;
    }
    out->session_present = flags & 1;
    return at.n == 0 ? TBF_OK : TBF_EMALFORMED;
}

tbf_status tbf_mqtt_ack(const tbf_frame *f, uint8_t version, tbf_ack *out) {
    tbf_span at = f->body;
    out->reason = 0;
    out->props = (tbf_span){at.p, 0};
    if (!take_packet_id(&at, &out->packet_id)) {
        return TBF_EMALFORMED;
    }
    if (version >= 5 && at.n > 0) {
        tbf_take_u8(&at, &out->reason);
        if (at.n > 0 && tbf_mqtt_props(&at, f->type, &out->props, NULL) != TBF_OK) {
            return TBF_EMALFORMED;
        }
    }
    return at.n == 0 ? TBF_OK : TBF_EMALFORMED;
}

tbf_status tbf_mqtt_next_filter(tbf_span *at, uint8_t type, tbf_subscription *out) {
    if (at->n == 0) {
        return TBF_MORE;
    }
    out->options = 0;
    if (!take_text(at, &out->filter) ||
        (type == TBF_MQTT_SUBSCRIBE && !tbf_take_u8(at, &out->options))) {
        return TBF_EMALFORMED;
    }
    return TBF_OK;
}

tbf_status tbf_mqtt_subscribe(const tbf_frame *f, uint8_t version, tbf_subscribe *out) {
    tbf_span at = f->body;
    if (!take_packet_id(&at, &out->packet_id) ||
        take_props(&at, version, f->type, &out->props) != TBF_OK) {
        return TBF_EMALFORMED;
    }
    out->filters = at;
    out->count = 0;
    const unsigned reserved = version >= 5 ? 0xC0 : 0xFC;
    tbf_subscription entry;
    tbf_status status;
    while ((status = tbf_mqtt_next_filter(&at, f->type, &entry)) == TBF_OK) {
        if ((entry.options & reserved) != 0 || (entry.options & 3) == 3 ||
            (entry.options & 0x30) == 0x30) {
            return TBF_EMALFORMED;
        }
        out->count++;
    }
    return status == TBF_MORE && out->count > 0 ? TBF_OK : TBF_EMALFORMED;
}

tbf_status tbf_mqtt_suback(const tbf_frame *f, uint8_t version, tbf_suback *out) {
    tbf_span at = f->body;
    if (!take_packet_id(&at, &out->packet_id) ||
        take_props(&at, version, f->type, &out->props) != TBF_OK) {
        return TBF_EMALFORMED;
    }
    out->codes = at;
    bool has_codes = f->type == TBF_MQTT_SUBACK || version >= 5;
    return (at.n > 0) == has_codes ? TBF_OK : TBF_EMALFORMED;
}

tbf_status tbf_mqtt_reason(const tbf_frame *f, uint8_t version, tbf_reason *out) {
    tbf_span at = f->body;
    *out = (tbf_reason){.props = {at.p, 0}};
    if (version < 5) {
        return f->type == TBF_MQTT_DISCONNECT && at.n == 0 ? TBF_OK : TBF_EMALFORMED;
    }
    if (at.n == 0) {
        return TBF_OK;
    }
    tbf_take_u8(&at, &out->reason);
    /* Only DISCONNECT may leave out the property length after a reason (MQTT 5 3.14.2.2.1). */
    if (at.n == 0 && f->type == TBF_MQTT_DISCONNECT) {
        return TBF_OK;
    }
    if (tbf_mqtt_props(&at, f->type, &out->props, NULL) != TBF_OK) {
        return TBF_EMALFORMED;
    }
    return at.n == 0 ? TBF_OK : TBF_EMALFORMED;
}
