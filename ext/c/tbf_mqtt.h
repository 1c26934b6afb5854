/* MQTT 3.1, 3.1.1 and 5: every control packet, both directions.
 *
 * Reading: tbf_mqtt_frame cuts one packet off a stream; the function of its type turns the body
 * into a struct of spans that point into it.  A body function sees only its own packet's bytes and
 * accepts it only if all of them are used, so what it returns needs no second check.
 *
 * Writing: the same structs go back to bytes (tbf_mqtt_write.c).
 *
 * Versions: 3 (3.1), 4 (3.1.1), 5.  Up to 4 there are no properties and no reason codes in
 * acknowledgements.  What is malformed: MQTT spec 1.2, hostile-input spec 4 to 8.  Two choices the
 * specs leave open: a length may be written longer than needed (devices with a fixed-width length
 * field do), and a string property that is not UTF-8 makes the packet malformed (MQTT 5 1.5.4). */
#ifndef TBF_MQTT_H
#define TBF_MQTT_H

#include "tbf_base.h"

enum {
    TBF_MQTT_CONNECT = 1,
    TBF_MQTT_CONNACK = 2,
    TBF_MQTT_PUBLISH = 3,
    TBF_MQTT_PUBACK = 4,
    TBF_MQTT_PUBREC = 5,
    TBF_MQTT_PUBREL = 6,
    TBF_MQTT_PUBCOMP = 7,
    TBF_MQTT_SUBSCRIBE = 8,
    TBF_MQTT_SUBACK = 9,
    TBF_MQTT_UNSUBSCRIBE = 10,
    TBF_MQTT_UNSUBACK = 11,
    TBF_MQTT_PINGREQ = 12,
    TBF_MQTT_PINGRESP = 13,
    TBF_MQTT_DISCONNECT = 14,
    TBF_MQTT_AUTH = 15
};

#define TBF_MQTT_HEADER_MAX 5u            /* longest fixed header */
#define TBF_MQTT_REMAINING_MAX 268435455u /* largest Remaining Length there is */
#define TBF_MQTT_ACK_BYTES 4u             /* what tbf_mqtt_put_ack writes */
#define TBF_MQTT_USER_PROPERTIES_MAX 64u  /* as limits.MQTT_USER_PROPERTIES */

/* --- fixed header ------------------------------------------------------------------------- */

typedef struct {
    uint8_t type;
    uint8_t flags;
    tbf_span body; /* after the fixed header */
    size_t total;  /* whole packet including the fixed header; 0 while the length is not known */
} tbf_frame;

/* Cuts the first packet off p[0..n).  TBF_MORE: not all there yet, out->total says how many bytes
 * it will have (0: the length itself is incomplete).  TBF_ETOOBIG as soon as the declared length
 * is above max_remaining.  TBF_EMALFORMED: type 0, flags that the type does not allow, QoS 3, a
 * fifth length byte, PINGREQ or PINGRESP with a body.  Both are found before the body arrives. */
tbf_status tbf_mqtt_frame(const uint8_t *p, size_t n, size_t max_remaining, tbf_frame *out);

/* --- bodies ------------------------------------------------------------------------------- */

typedef struct {
    tbf_span topic; /* empty only on version 5 (topic alias) */
    tbf_span payload;
    tbf_span props;     /* property block without its length */
    uint16_t packet_id; /* 0 on QoS 0 */
    uint8_t qos;
    bool retain;
    bool dup;
    uint16_t topic_alias; /* 0: none, or the invalid alias 0 (both: no topic stands behind it) */
} tbf_publish;

typedef struct {
    uint8_t version;
    bool clean_start;
    bool has_will, has_username, has_password;
    bool will_retain;
    uint8_t will_qos;
    uint16_t keep_alive;
    tbf_span props, client_id, will_props, will_topic, will_payload, username, password;
} tbf_connect;

typedef struct {
    bool session_present;
    uint8_t reason;
    tbf_span props;
} tbf_connack;

/* PUBACK, PUBREC, PUBREL, PUBCOMP. */
typedef struct {
    uint16_t packet_id;
    uint8_t reason;
    tbf_span props;
} tbf_ack;

/* SUBSCRIBE and UNSUBSCRIBE: the filters are walked with tbf_mqtt_next_filter. */
typedef struct {
    uint16_t packet_id;
    uint32_t count;
    tbf_span props, filters;
} tbf_subscribe;

typedef struct {
    tbf_span filter; /* may be empty: failure of the entry, not of the packet */
    uint8_t options; /* SUBSCRIBE: QoS | no-local 4 | retain-as-published 8 | retain handling 48 */
} tbf_subscription;

/* SUBACK and UNSUBACK; codes is empty on an UNSUBACK before version 5. */
typedef struct {
    uint16_t packet_id;
    tbf_span props, codes;
} tbf_suback;

/* DISCONNECT and AUTH. */
typedef struct {
    uint8_t reason;
    tbf_span props;
} tbf_reason;

/* Each expects a frame of its own type(s) and returns TBF_OK or TBF_EMALFORMED; tbf_mqtt_connect
 * also TBF_EPROTOCOL (unknown protocol name or level: nothing can be answered). */
tbf_status tbf_mqtt_publish(const tbf_frame *f, uint8_t version, tbf_publish *out);
tbf_status tbf_mqtt_connect(const tbf_frame *f, tbf_connect *out);
tbf_status tbf_mqtt_connack(const tbf_frame *f, uint8_t version, tbf_connack *out);
tbf_status tbf_mqtt_ack(const tbf_frame *f, uint8_t version, tbf_ack *out);
tbf_status tbf_mqtt_subscribe(const tbf_frame *f, uint8_t version, tbf_subscribe *out);
tbf_status tbf_mqtt_suback(const tbf_frame *f, uint8_t version, tbf_suback *out);
tbf_status tbf_mqtt_reason(const tbf_frame *f, uint8_t version, tbf_reason *out);

/* Takes one entry off tbf_subscribe.filters; type as of the frame.  TBF_MORE: used up. */
tbf_status tbf_mqtt_next_filter(tbf_span *at, uint8_t type, tbf_subscription *out);

/* True if these bytes may stand in an MQTT string: UTF-8 without U+0000 and surrogates. */
bool tbf_mqtt_is_text(tbf_span s);
/* The same for a PUBLISH topic: no wildcard either. */
bool tbf_mqtt_is_topic(tbf_span s);

/* --- properties (version 5) --------------------------------------------------------------- */

/* How a property is written; its identifier decides (MQTT 5 table 2-4). */
typedef enum {
    TBF_FORM_NONE = 0, /* no such property */
    TBF_FORM_BYTE,
    TBF_FORM_TWO,
    TBF_FORM_FOUR,
    TBF_FORM_VARIABLE,
    TBF_FORM_TEXT,
    TBF_FORM_BINARY,
    TBF_FORM_PAIR
} tbf_form;
tbf_form tbf_mqtt_property_form(uint8_t id);

typedef struct {
    uint8_t id;
    uint32_t number; /* BYTE, TWO, FOUR, VARIABLE */
    tbf_span text;   /* TEXT, BINARY; name of a PAIR */
    tbf_span value;  /* value of a PAIR */
} tbf_property;

#define TBF_MQTT_WILL 0u /* "packet type" of the will properties inside CONNECT */

/* Takes property length and block off the front of `at` and checks the whole block for packets of
 * this type (or TBF_MQTT_WILL): known, allowed there, not repeated unless it may be, in range.
 * topic_alias may be NULL. */
tbf_status tbf_mqtt_props(tbf_span *at, uint8_t type, tbf_span *props, uint16_t *topic_alias);
/* Takes one property off a block.  TBF_MORE: used up. */
tbf_status tbf_mqtt_next_property(tbf_span *at, tbf_property *out);

/* --- writing ------------------------------------------------------------------------------ */

/* Writes the 4 bytes of a successful PUBACK, PUBREC, PUBREL or PUBCOMP; the same in each version.
 */
static inline size_t tbf_mqtt_put_ack(uint8_t *out, uint8_t type, uint16_t packet_id) {
    out[0] = (uint8_t)(type << 4 | (type == TBF_MQTT_PUBREL ? 2 : 0));
    out[1] = 2;
    out[2] = (uint8_t)(packet_id >> 8);
    out[3] = (uint8_t)packet_id;
    return TBF_MQTT_ACK_BYTES;
}

/* Each writes one packet at out.  *n is set to the bytes it needs; TBF_ENOSPACE if cap is less,
 * with nothing written; TBF_ETOOBIG if a string is above 65,535 bytes or the packet above MQTT's
 * own bound.  What the version lacks (properties, reason codes of acknowledgements) is left out.
 * Contents are not checked: hand the result to the parser if they came from elsewhere. */
tbf_status tbf_mqtt_put_publish(uint8_t *out, size_t cap, size_t *n, uint8_t version,
                                const tbf_publish *in);
tbf_status tbf_mqtt_put_connect(uint8_t *out, size_t cap, size_t *n, const tbf_connect *in);
tbf_status tbf_mqtt_put_connack(uint8_t *out, size_t cap, size_t *n, uint8_t version,
                                const tbf_connack *in);
tbf_status tbf_mqtt_put_acknowledgement(uint8_t *out, size_t cap, size_t *n, uint8_t version,
                                        uint8_t type, const tbf_ack *in);
tbf_status tbf_mqtt_put_subscribe(uint8_t *out, size_t cap, size_t *n, uint8_t version,
                                  uint8_t type, const tbf_subscribe *in);
tbf_status tbf_mqtt_put_suback(uint8_t *out, size_t cap, size_t *n, uint8_t version, uint8_t type,
                               const tbf_suback *in);
tbf_status tbf_mqtt_put_reason(uint8_t *out, size_t cap, size_t *n, uint8_t version, uint8_t type,
                               const tbf_reason *in);
/* PINGREQ, PINGRESP. */
tbf_status tbf_mqtt_put_ping(uint8_t *out, size_t cap, size_t *n, uint8_t type);
/* Pieces of the above: one entry of tbf_subscribe.filters, one property of a block. */
tbf_status tbf_mqtt_put_filter(uint8_t *out, size_t cap, size_t *n, uint8_t type,
                               const tbf_subscription *in);
tbf_status tbf_mqtt_put_property(uint8_t *out, size_t cap, size_t *n, const tbf_property *in);

#endif
