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
enum { BYTE = 1, TWO = 2, FOUR = 4, VARIABLE = 5, TEXT = 6, BINARY = 7, PAIR = 8 };

/* MQTT 5 table 2-4.  A number outside min..max makes the packet malformed. */
static const struct {
    uint8_t form; /* 0: no such property */
    uint16_t in;  /* packet types that may carry it, one bit each */
    uint32_t min, max;
} TABLE[ID_COUNT] = {
    [1] = {BYTE, PUBLISH | WILL, 0, 1},                           /* Payload Format Indicator */
    [2] = {FOUR, PUBLISH | WILL, 0, UINT32_MAX},                  /* Message Expiry Interval */
    [3] = {TEXT, PUBLISH | WILL, 0, 0},                           /* Content Type */
    [8] = {TEXT, PUBLISH | WILL, 0, 0},                           /* Response Topic */
    [9] = {BINARY, PUBLISH | WILL, 0, 0},                         /* Correlation Data */
    [11] = {VARIABLE, PUBLISH | SUBSCRIBE, 1, UINT32_MAX},        /* Subscription Identifier */
    [17] = {FOUR, CONNECT | CONNACK | DISCONNECT, 0, UINT32_MAX}, /* Session Expiry Interval */
    [18] = {TEXT, CONNACK, 0, 0},                                 /* Assigned Client Identifier */
    [19] = {TWO, CONNACK, 0, UINT16_MAX},                         /* Server Keep Alive */
    [21] = {TEXT, CONNECT | CONNACK | AUTH, 0, 0},                /* Authentication Method */
    [22] = {BINARY, CONNECT | CONNACK | AUTH, 0, 0},              /* Authentication Data */
    [23] = {BYTE, CONNECT, 0, 1},                                 /* Request Problem Information */
    [24] = {FOUR, WILL, 0, UINT32_MAX},                           /* Will Delay Interval */
    [25] = {BYTE, CONNECT, 0, 1},                                 /* Request Response Information */
    [26] = {TEXT, CONNACK, 0, 0},                                 /* Response Information */
    [28] = {TEXT, CONNACK | DISCONNECT, 0, 0},                    /* Server Reference */
    [31] = {TEXT, CONNACK | ACKS | DISCONNECT | AUTH, 0, 0},      /* Reason String */
    [33] = {TWO, CONNECT | CONNACK, 1, UINT16_MAX},               /* Receive Maximum */
    [34] = {TWO, CONNECT | CONNACK, 0, UINT16_MAX},               /* Topic Alias Maximum */
    [35] = {TWO, PUBLISH, 0, UINT16_MAX}, /* Topic Alias: 0 is an unknown topic, spec 1.9 */
    [36] = {BYTE, CONNACK, 0, 1},         /* Maximum QoS */
    [37] = {BYTE, CONNACK, 0, 1},         /* Retain Available */
    [38] = {PAIR, UINT16_MAX, 0, 0},      /* User Property: every type that has a block */
    [39] = {FOUR, CONNECT | CONNACK, 1, UINT32_MAX}, /* Maximum Packet Size */
    [40] = {BYTE, CONNACK, 0, 1},                    /* Wildcard Subscription Available */
    [41] = {BYTE, CONNACK, 0, 1},                    /* Subscription Identifier Available */
    [42] = {BYTE, CONNACK, 0, 1},                    /* Shared Subscription Available */
};

/* Reads a number of this form; true also for the forms that are not numbers. */
static bool take_number(tbf_span *at, uint8_t form, uint32_t *out) {
    uint8_t byte;
    uint16_t two;
    switch (form) {
    case BYTE:
        if (!tbf_take_u8(at, &byte)) {
            return false;
        }
        *out = byte;
        return true;
    case TWO:
        if (!tbf_take_u16(at, &two)) {
            return false;
        }
        *out = two;
        return true;
    case FOUR:
        return tbf_take_u32(at, out);
    default:
        return tbf_take_vbi(at, out);
    }
}

tbf_status tbf_mqtt_next_property(tbf_span *at, tbf_property *out) {
    if (at->n == 0) {
        return TBF_MORE;
    }
    /* An identifier is a variable byte integer, but every defined one fits one byte. */
    uint8_t id = at->p[0];
    uint8_t form = id < ID_COUNT ? TABLE[id].form : 0;
    tbf_skip(at, 1);
    *out = (tbf_property){.id = id};
    switch (form) {
    case 0:
        return TBF_EMALFORMED;
    case TEXT:
    case BINARY:
        out->kind = form == TEXT ? TBF_PROP_TEXT : TBF_PROP_BINARY;
        return tbf_take_field(at, &out->text) ? TBF_OK : TBF_EMALFORMED;
    case PAIR:
        out->kind = TBF_PROP_PAIR;
        return tbf_take_field(at, &out->text) && tbf_take_field(at, &out->value) ? TBF_OK
                                                                                 : TBF_EMALFORMED;
    default:
        out->kind = TBF_PROP_NUMBER;
        return take_number(at, form, &out->number) ? TBF_OK : TBF_EMALFORMED;
    }
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
    switch (prop->kind) {
    case TBF_PROP_NUMBER:
        return prop->number >= TABLE[prop->id].min && prop->number <= TABLE[prop->id].max;
    case TBF_PROP_TEXT:
        return tbf_mqtt_is_text(prop->text);
    case TBF_PROP_PAIR:
        return tbf_mqtt_is_text(prop->text) && tbf_mqtt_is_text(prop->value);
    case TBF_PROP_BINARY:
        break;
    }
    return true;
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
