/* MQTT 5 property blocks (MQTT 5 2.2.2); contract in tbf_mqtt.h. */
#include "tbf_mqtt.h"
#include "tbf_mqtt_read.h"

#define IN(type) (1u << (type))
#define CONNECT IN(TBF_MQTT_CONNECT)
#define CONNACK IN(TBF_MQTT_CONNACK)
#define PUBLISH IN(TBF_MQTT_PUBLISH)
#define SUBSCRIBE IN(TBF_MQTT_SUBSCRIBE)
#define DISCONNECT IN(TBF_MQTT_DISCONNECT)
#define AUTH IN(TBF_MQTT_AUTH)
#define WILL IN(TBF_MQTT_WILL)
#define ACKS                                                                                       \
    (IN(TBF_MQTT_PUBACK) | IN(TBF_MQTT_PUBREC) | IN(TBF_MQTT_PUBREL) | IN(TBF_MQTT_PUBCOMP) |      \
     IN(TBF_MQTT_SUBACK) | IN(TBF_MQTT_UNSUBACK))

enum { USER_PROPERTY = 38, SUBSCRIPTION_IDENTIFIER = 11, TOPIC_ALIAS = 35, ID_COUNT = 43 };

enum {
    BYTE = TBF_FORM_BYTE,
    TWO = TBF_FORM_TWO,
    FOUR = TBF_FORM_FOUR,
    VARIABLE = TBF_FORM_VARIABLE,
    TEXT = TBF_FORM_TEXT,
    BINARY = TBF_FORM_BINARY,
    PAIR = TBF_FORM_PAIR
};
#define ANY UINT32_MAX
#define EVERY UINT16_MAX /* each packet type that has a property block */

/* MQTT 5 table 2-4.  A number outside min..max makes the packet malformed. */
static const struct {
    uint8_t form; /* 0: no such property */
    uint16_t in;  /* packet types that may carry it, one bit each */
    uint32_t min, max;
} TABLE[ID_COUNT] = {
    [1] = {BYTE, PUBLISH | WILL, 0, 1},                      /* Payload Format Indicator */
    [2] = {FOUR, PUBLISH | WILL, 0, ANY},                    /* Message Expiry Interval */
    [3] = {TEXT, PUBLISH | WILL, 0, 0},                      /* Content Type */
    [8] = {TEXT, PUBLISH | WILL, 0, 0},                      /* Response Topic */
    [9] = {BINARY, PUBLISH | WILL, 0, 0},                    /* Correlation Data */
    [11] = {VARIABLE, PUBLISH | SUBSCRIBE, 1, ANY},          /* Subscription Identifier */
    [17] = {FOUR, CONNECT | CONNACK | DISCONNECT, 0, ANY},   /* Session Expiry Interval */
    [18] = {TEXT, CONNACK, 0, 0},                            /* Assigned Client Identifier */
    [19] = {TWO, CONNACK, 0, ANY},                           /* Server Keep Alive */
    [21] = {TEXT, CONNECT | CONNACK | AUTH, 0, 0},           /* Authentication Method */
    [22] = {BINARY, CONNECT | CONNACK | AUTH, 0, 0},         /* Authentication Data */
    [23] = {BYTE, CONNECT, 0, 1},                            /* Request Problem Information */
    [24] = {FOUR, WILL, 0, ANY},                             /* Will Delay Interval */
    [25] = {BYTE, CONNECT, 0, 1},                            /* Request Response Information */
    [26] = {TEXT, CONNACK, 0, 0},                            /* Response Information */
    [28] = {TEXT, CONNACK | DISCONNECT, 0, 0},               /* Server Reference */
    [31] = {TEXT, CONNACK | ACKS | DISCONNECT | AUTH, 0, 0}, /* Reason String */
    [33] = {TWO, CONNECT | CONNACK, 1, ANY},                 /* Receive Maximum */
    [34] = {TWO, CONNECT | CONNACK, 0, ANY},                 /* Topic Alias Maximum */
    [35] = {TWO, PUBLISH, 0, ANY},            /* Topic Alias: 0 is an unknown topic, spec 1.9 */
    [36] = {BYTE, CONNACK, 0, 1},             /* Maximum QoS */
    [37] = {BYTE, CONNACK, 0, 1},             /* Retain Available */
    [38] = {PAIR, EVERY, 0, 0},               /* User Property */
    [39] = {FOUR, CONNECT | CONNACK, 1, ANY}, /* Maximum Packet Size */
    [40] = {BYTE, CONNACK, 0, 1},             /* Wildcard Subscription Available */
    [41] = {BYTE, CONNACK, 0, 1},             /* Subscription Identifier Available */
    [42] = {BYTE, CONNACK, 0, 1},             /* Shared Subscription Available */
};

tbf_form tbf_mqtt_property_form(uint8_t id) {
    return id < ID_COUNT ? (tbf_form)TABLE[id].form : TBF_FORM_NONE;
}

static bool take_value(tbf_span *at, tbf_property *out) {
    uint8_t byte = 0;
    uint16_t two = 0;
    switch (tbf_mqtt_property_form(out->id)) {
    case TBF_FORM_BYTE:
        if (!tbf_take_u8(at, &byte)) {
            return false;
        }
        out->number = byte;
        return true;
    case TBF_FORM_TWO:
        if (!tbf_take_u16(at, &two)) {
            return false;
        }
        out->number = two;
        return true;
    case TBF_FORM_FOUR:
        return tbf_take_u32(at, &out->number);
    case TBF_FORM_VARIABLE:
        return tbf_take_vbi(at, &out->number);
    case TBF_FORM_TEXT:
    case TBF_FORM_BINARY:
        return tbf_take_field(at, &out->text);
    case TBF_FORM_PAIR:
        return tbf_take_field(at, &out->text) && tbf_take_field(at, &out->value);
    case TBF_FORM_NONE:
        break;
    }
    return false;
}

tbf_status tbf_mqtt_next_property(tbf_span *at, tbf_property *out) {
    /* An identifier is a variable byte integer, but every defined one fits one byte. */
    *out = (tbf_property){0};
    if (!tbf_take_u8(at, &out->id)) {
        return TBF_MORE;
    }
    return take_value(at, out) ? TBF_OK : TBF_EMALFORMED;
}

/* One property of a block in a packet of this type; `seen` has a bit per identifier. */
static bool allowed(const tbf_property *prop, uint8_t type, uint64_t *seen) {
    uint64_t bit = (uint64_t)1 << prop->id;
    bool repeats = prop->id == USER_PROPERTY ||
                   (prop->id == SUBSCRIPTION_IDENTIFIER && type == TBF_MQTT_PUBLISH);
    if ((TABLE[prop->id].in & IN(type)) == 0 || (!repeats && (*seen & bit) != 0)) {
        return false;
    }
    *seen |= bit;
    switch (TABLE[prop->id].form) {
    case TBF_FORM_TEXT:
        return tbf_mqtt_is_text(prop->text);
    case TBF_FORM_PAIR:
        return tbf_mqtt_is_text(prop->text) && tbf_mqtt_is_text(prop->value);
    case TBF_FORM_BINARY:
        return true;
    default:
        return prop->number >= TABLE[prop->id].min && prop->number <= TABLE[prop->id].max;
    }
}

tbf_status tbf_mqtt_props(tbf_span *at, uint8_t type, tbf_span *props, uint16_t *topic_alias) {
    uint32_t n;
    if (!tbf_take_vbi(at, &n) || at->n < n) {
        return TBF_EMALFORMED;
    }
    tbf_span block = {at->p, n};
    tbf_skip(at, n);
    *props = block;
    uint64_t seen = 0;
    uint32_t user = 0;
    tbf_property prop;
    tbf_status status;
    while ((status = tbf_mqtt_next_property(&block, &prop)) == TBF_OK) {
        user += prop.id == USER_PROPERTY;
        if (user > TBF_MQTT_USER_PROPERTIES_MAX || !allowed(&prop, type, &seen)) {
            return TBF_EMALFORMED;
        }
        if (prop.id == TOPIC_ALIAS && topic_alias != NULL) {
            *topic_alias = (uint16_t)prop.number;
        }
    }
    return status == TBF_MORE ? TBF_OK : TBF_EMALFORMED;
}
