# C declarations of ext/c/tbf_mqtt.h.
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from tbfast._ext.batch cimport tbf_span, tbf_status

cdef extern from "tbf_base.h" nogil:
    const tbf_status TBF_EPROTOCOL

cdef extern from "tbf_mqtt.h" nogil:
    const uint8_t TBF_MQTT_CONNECT
    const uint8_t TBF_MQTT_CONNACK
    const uint8_t TBF_MQTT_PUBLISH
    const uint8_t TBF_MQTT_PUBACK
    const uint8_t TBF_MQTT_PUBREC
    const uint8_t TBF_MQTT_PUBREL
    const uint8_t TBF_MQTT_PUBCOMP
    const uint8_t TBF_MQTT_SUBSCRIBE
    const uint8_t TBF_MQTT_SUBACK
    const uint8_t TBF_MQTT_UNSUBSCRIBE
    const uint8_t TBF_MQTT_UNSUBACK
    const uint8_t TBF_MQTT_PINGREQ
    const uint8_t TBF_MQTT_PINGRESP
    const uint8_t TBF_MQTT_DISCONNECT
    const uint8_t TBF_MQTT_AUTH
    const uint8_t TBF_MQTT_WILL
    const size_t TBF_MQTT_HEADER_MAX
    const size_t TBF_MQTT_REMAINING_MAX
    const size_t TBF_MQTT_ACK_BYTES
    const uint32_t TBF_MQTT_USER_PROPERTIES_MAX

    ctypedef struct tbf_frame:
        uint8_t type
        uint8_t flags
        tbf_span body
        size_t total
    ctypedef struct tbf_publish:
        tbf_span topic
        tbf_span payload
        tbf_span props
        uint16_t packet_id
        uint8_t qos
        bint retain
        bint dup
        uint16_t topic_alias
    ctypedef struct tbf_connect:
        uint8_t version
        bint clean_start
        bint has_will
        bint has_username
        bint has_password
        bint will_retain
        uint8_t will_qos
        uint16_t keep_alive
        tbf_span props
        tbf_span client_id
        tbf_span will_props
        tbf_span will_topic
        tbf_span will_payload
        tbf_span username
        tbf_span password
    ctypedef struct tbf_connack:
        bint session_present
        uint8_t reason
        tbf_span props
    ctypedef struct tbf_ack:
        uint16_t packet_id
        uint8_t reason
        tbf_span props
    ctypedef struct tbf_subscribe:
        uint16_t packet_id
        uint32_t count
        tbf_span props
        tbf_span filters
    ctypedef struct tbf_subscription:
        tbf_span filter
        uint8_t options
    ctypedef struct tbf_suback:
        uint16_t packet_id
        tbf_span props
        tbf_span codes
    ctypedef struct tbf_reason:
        uint8_t reason
        tbf_span props
    ctypedef enum tbf_form:
        TBF_FORM_NONE
        TBF_FORM_BYTE
        TBF_FORM_TWO
        TBF_FORM_FOUR
        TBF_FORM_VARIABLE
        TBF_FORM_TEXT
        TBF_FORM_BINARY
        TBF_FORM_PAIR
    ctypedef struct tbf_property:
        uint8_t id
        uint32_t number
        tbf_span text
        tbf_span value

    tbf_status tbf_mqtt_frame(const uint8_t *p, size_t n, size_t max_remaining, tbf_frame *out)
    tbf_status tbf_mqtt_publish(const tbf_frame *f, uint8_t version, tbf_publish *out)
    tbf_status tbf_mqtt_connect(const tbf_frame *f, tbf_connect *out)
    tbf_status tbf_mqtt_connack(const tbf_frame *f, uint8_t version, tbf_connack *out)
    tbf_status tbf_mqtt_ack(const tbf_frame *f, uint8_t version, tbf_ack *out)
    tbf_status tbf_mqtt_subscribe(const tbf_frame *f, uint8_t version, tbf_subscribe *out)
    tbf_status tbf_mqtt_suback(const tbf_frame *f, uint8_t version, tbf_suback *out)
    tbf_status tbf_mqtt_reason(const tbf_frame *f, uint8_t version, tbf_reason *out)
    tbf_status tbf_mqtt_next_filter(tbf_span *at, uint8_t type, tbf_subscription *out)
    bint tbf_mqtt_is_text(tbf_span s)
    bint tbf_mqtt_is_topic(tbf_span s)
    tbf_form tbf_mqtt_property_form(uint8_t id)
    tbf_status tbf_mqtt_props(tbf_span *at, uint8_t type, tbf_span *props, uint16_t *topic_alias)
    tbf_status tbf_mqtt_next_property(tbf_span *at, tbf_property *out)

    size_t tbf_mqtt_put_ack(uint8_t *out, uint8_t type, uint16_t packet_id)
    tbf_status tbf_mqtt_put_publish(uint8_t *out, size_t cap, size_t *n, uint8_t version,
                                    const tbf_publish *packet)
    tbf_status tbf_mqtt_put_connect(uint8_t *out, size_t cap, size_t *n, const tbf_connect *packet)
    tbf_status tbf_mqtt_put_connack(uint8_t *out, size_t cap, size_t *n, uint8_t version,
                                    const tbf_connack *packet)
    tbf_status tbf_mqtt_put_acknowledgement(uint8_t *out, size_t cap, size_t *n, uint8_t version,
                                            uint8_t type, const tbf_ack *packet)
    tbf_status tbf_mqtt_put_subscribe(uint8_t *out, size_t cap, size_t *n, uint8_t version,
                                      uint8_t type, const tbf_subscribe *packet)
    tbf_status tbf_mqtt_put_suback(uint8_t *out, size_t cap, size_t *n, uint8_t version,
                                   uint8_t type, const tbf_suback *packet)
    tbf_status tbf_mqtt_put_reason(uint8_t *out, size_t cap, size_t *n, uint8_t version,
                                   uint8_t type, const tbf_reason *packet)
    tbf_status tbf_mqtt_put_ping(uint8_t *out, size_t cap, size_t *n, uint8_t type)
    tbf_status tbf_mqtt_put_filter(uint8_t *out, size_t cap, size_t *n, uint8_t type,
                                   const tbf_subscription *entry)
    tbf_status tbf_mqtt_put_property(uint8_t *out, size_t cap, size_t *n, const tbf_property *entry)

cdef uint8_t checked_level(object version) except 255
