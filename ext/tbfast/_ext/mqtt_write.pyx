"""MQTT packets to bytes, over the C writer (MQTT spec 1.9); public in tbfast.codec.mqtt."""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t

from tbfast._ext.batch cimport TBF_ENOSPACE, TBF_ETOOBIG, TBF_OK, tbf_span, tbf_status
from tbfast._ext.mqtt cimport *

from tbfast.errors import LocalError
from tbfast.model.mqtt import PACKET_TYPES, PROPERTY_FIELDS

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *n) except NULL

cdef dict TYPE_OF = {cls: number for number, cls in enumerate(PACKET_TYPES, 1)}
cdef tuple NAMES = tuple(PROPERTY_FIELDS.get(number) for number in range(43))
cdef enum:
    SUBSCRIPTION_IDENTIFIER = 11

cdef enum:
    SMALL = 512  # most packets fit: written on the stack, copied once


cdef inline tbf_span span_of_text(str value) except *:
    """UTF-8 of value, cached by it and valid while it lives."""
    cdef Py_ssize_t n
    cdef tbf_span s
    s.p = <const uint8_t *>PyUnicode_AsUTF8AndSize(value, &n)
    s.n = <size_t>n
    return s


cdef inline tbf_span span_of_bytes(bytes value):
    cdef tbf_span s
    s.p = <const uint8_t *>PyBytes_AS_STRING(value)
    s.n = <size_t>len(value)
    return s


cdef inline tbf_span span_of_block(bytearray value):
    cdef tbf_span s
    s.p = NULL
    s.n = 0
    if value is None:
        return s
    s.p = <const uint8_t *>PyByteArray_AS_STRING(value)
    s.n = <size_t>len(value)
    return s


cdef int append_property(bytearray block, const tbf_property *prop) except -1:
    cdef size_t n
    cdef Py_ssize_t have = len(block)
    if tbf_mqtt_put_property(NULL, 0, &n, prop) == TBF_ETOOBIG:
        raise LocalError(f"{NAMES[prop.id]} is too large")
    PyByteArray_Resize(block, have + <Py_ssize_t>n)
    tbf_mqtt_put_property(<uint8_t *>PyByteArray_AS_STRING(block) + have, n, &n, prop)
    return 0


cdef bytearray block_of(object properties, uint8_t version):
    """Property block without its length; None if there is nothing to write."""
    cdef bytearray block
    cdef tbf_property prop
    cdef tbf_form form
    if properties is None or version < 5:
        return None
    block = bytearray()
    for number, name in enumerate(NAMES):
        value = None if name is None else getattr(properties, name)
        if value is None:
            continue
        prop.id = number
        form = tbf_mqtt_property_form(prop.id)
        if form == TBF_FORM_PAIR:
            for key, item in value:
                prop.text = span_of_text(key)
                prop.value = span_of_text(item)
                append_property(block, &prop)
        elif prop.id == SUBSCRIPTION_IDENTIFIER:
            for item in value:
                prop.number = item
                append_property(block, &prop)
        else:
            if form == TBF_FORM_TEXT:
                prop.text = span_of_text(value)
            elif form == TBF_FORM_BINARY:
                prop.text = span_of_bytes(value)
            else:
                prop.number = value
            append_property(block, &prop)
    return block


cdef uint8_t qos_of(object value) except 255:
    if value not in (0, 1, 2):
        raise LocalError(f"no such QoS: {value!r}")
    return value


cdef tbf_status write_publish(uint8_t *out, size_t cap, size_t *n, object packet,
                              uint8_t version) except *:
    cdef tbf_publish p
    cdef bytearray block = block_of(packet.properties, version)
    p.topic = span_of_text(packet.topic)
    p.payload = span_of_bytes(packet.payload)
    p.props = span_of_block(block)
    p.qos = qos_of(packet.qos)
    p.retain = packet.retain
    p.dup = packet.dup
    if (packet.packet_id is None) != (p.qos == 0):
        raise LocalError("a packet identifier belongs to QoS 1 and 2, and only to them")
    p.packet_id = packet.packet_id or 0
    return tbf_mqtt_put_publish(out, cap, n, version, &p)


cdef tbf_status write_connect(uint8_t *out, size_t cap, size_t *n, object packet,
                              uint8_t version) except *:
    cdef tbf_connect c
    cdef bytearray block = block_of(packet.properties, version), will_block
    c.version = version
    c.clean_start = packet.clean_start
    c.keep_alive = packet.keep_alive
    c.client_id = span_of_text(packet.client_id)
    c.props = span_of_block(block)
    c.has_username = packet.username is not None
    c.has_password = packet.password is not None
    c.has_will = packet.will is not None
    c.will_qos = 0
    c.will_retain = False
    if c.has_username:
        c.username = span_of_text(packet.username)
    if c.has_password:
        c.password = span_of_bytes(packet.password)
    if c.has_will:
        will_block = block_of(packet.will.properties, version)
        c.will_props = span_of_block(will_block)
        c.will_topic = span_of_text(packet.will.topic)
        c.will_payload = span_of_bytes(packet.will.payload)
        c.will_qos = qos_of(packet.will.qos)
        c.will_retain = packet.will.retain
    return tbf_mqtt_put_connect(out, cap, n, &c)


cdef tbf_status write_connack(uint8_t *out, size_t cap, size_t *n, object packet,
                              uint8_t version) except *:
    cdef tbf_connack c
    cdef bytearray block = block_of(packet.properties, version)
    c.session_present = packet.session_present
    c.reason = packet.reason_code
    c.props = span_of_block(block)
    return tbf_mqtt_put_connack(out, cap, n, version, &c)


cdef tbf_status write_ack(uint8_t *out, size_t cap, size_t *n, object packet, uint8_t kind,
                          uint8_t version) except *:
    cdef tbf_ack a
    cdef bytearray block = block_of(packet.properties, version)
    a.packet_id = packet.packet_id
    a.reason = packet.reason_code
    a.props = span_of_block(block)
    return tbf_mqtt_put_acknowledgement(out, cap, n, version, kind, &a)


cdef bytearray filters_of(object packet, uint8_t kind, uint8_t version):
    cdef bytearray filters = bytearray()
    cdef tbf_subscription e
    cdef size_t n
    cdef Py_ssize_t have
    for entry in packet.subscriptions if kind == TBF_MQTT_SUBSCRIBE else packet.filters:
        e.options = 0
        if kind == TBF_MQTT_SUBSCRIBE:
            e.filter = span_of_text(entry.filter)
            e.options = qos_of(entry.qos)
            if version >= 5:
                if entry.retain_handling not in (0, 1, 2):
                    raise LocalError(f"no such retain handling: {entry.retain_handling!r}")
                e.options |= (bool(entry.no_local) << 2 | bool(entry.retain_as_published) << 3
                              | entry.retain_handling << 4)
        else:
            e.filter = span_of_text(entry)
        if tbf_mqtt_put_filter(NULL, 0, &n, kind, &e) == TBF_ETOOBIG:
            raise LocalError("a topic filter is above 65,535 bytes")
        have = len(filters)
        PyByteArray_Resize(filters, have + <Py_ssize_t>n)
        tbf_mqtt_put_filter(<uint8_t *>PyByteArray_AS_STRING(filters) + have, n, &n, kind, &e)
    return filters


cdef tbf_status write_subscribe(uint8_t *out, size_t cap, size_t *n, object packet, uint8_t kind,
                                uint8_t version) except *:
    cdef tbf_subscribe s
    cdef bytearray block = block_of(packet.properties, version)
    cdef bytearray filters = filters_of(packet, kind, version)
    s.packet_id = packet.packet_id
    s.props = span_of_block(block)
    s.filters = span_of_block(filters)
    return tbf_mqtt_put_subscribe(out, cap, n, version, kind, &s)


cdef tbf_status write_suback(uint8_t *out, size_t cap, size_t *n, object packet, uint8_t kind,
                             uint8_t version) except *:
    cdef tbf_suback s
    cdef bytearray block = block_of(packet.properties, version)
    cdef bytes codes = bytes(packet.reason_codes)
    s.packet_id = packet.packet_id
    s.props = span_of_block(block)
    s.codes = span_of_bytes(codes)
    return tbf_mqtt_put_suback(out, cap, n, version, kind, &s)


cdef tbf_status write_reason(uint8_t *out, size_t cap, size_t *n, object packet, uint8_t kind,
                             uint8_t version) except *:
    cdef tbf_reason r
    cdef bytearray block = block_of(packet.properties, version)
    r.reason = packet.reason_code
    r.props = span_of_block(block)
    return tbf_mqtt_put_reason(out, cap, n, version, kind, &r)


cdef tbf_status write(uint8_t *out, size_t cap, size_t *n, object packet, uint8_t kind,
                      uint8_t version) except *:
    if kind == TBF_MQTT_PUBLISH:
        return write_publish(out, cap, n, packet, version)
    if TBF_MQTT_PUBACK <= kind <= TBF_MQTT_PUBCOMP:
        return write_ack(out, cap, n, packet, kind, version)
    if kind == TBF_MQTT_CONNECT:
        return write_connect(out, cap, n, packet, version)
    if kind == TBF_MQTT_CONNACK:
        return write_connack(out, cap, n, packet, version)
    if kind == TBF_MQTT_SUBSCRIBE or kind == TBF_MQTT_UNSUBSCRIBE:
        return write_subscribe(out, cap, n, packet, kind, version)
    if kind == TBF_MQTT_SUBACK or kind == TBF_MQTT_UNSUBACK:
        return write_suback(out, cap, n, packet, kind, version)
    if kind == TBF_MQTT_DISCONNECT or kind == TBF_MQTT_AUTH:
        return write_reason(out, cap, n, packet, kind, version)
    return tbf_mqtt_put_ping(out, cap, n, kind)


cdef tbf_status reread(bytes out, uint8_t version):
    """What our own parser says to these bytes, without a Python object made."""
    cdef tbf_frame f
    cdef tbf_publish publish
    cdef tbf_connect connect
    cdef tbf_connack connack
    cdef tbf_ack ack
    cdef tbf_subscribe subscribe
    cdef tbf_suback suback
    cdef tbf_reason reason
    cdef tbf_status status = tbf_mqtt_frame(<const uint8_t *>PyBytes_AS_STRING(out),
                                            <size_t>len(out), TBF_MQTT_REMAINING_MAX, &f)
    if status != TBF_OK:
        return status
    if f.type == TBF_MQTT_PUBLISH:
        return tbf_mqtt_publish(&f, version, &publish)
    if TBF_MQTT_PUBACK <= f.type <= TBF_MQTT_PUBCOMP:
        return tbf_mqtt_ack(&f, version, &ack)
    if f.type == TBF_MQTT_CONNECT:
        return tbf_mqtt_connect(&f, &connect)
    if f.type == TBF_MQTT_CONNACK:
        return tbf_mqtt_connack(&f, version, &connack)
    if f.type == TBF_MQTT_SUBSCRIBE or f.type == TBF_MQTT_UNSUBSCRIBE:
        return tbf_mqtt_subscribe(&f, version, &subscribe)
    if f.type == TBF_MQTT_SUBACK or f.type == TBF_MQTT_UNSUBACK:
        return tbf_mqtt_suback(&f, version, &suback)
    if f.type == TBF_MQTT_DISCONNECT or f.type == TBF_MQTT_AUTH:
        return tbf_mqtt_reason(&f, version, &reason)
    return TBF_OK


def encode(packet, version):
    """Bytes of one packet for a peer of this protocol level (CONNECT: its own level).

    Fields the level does not have are left out: properties, subscription options, and the reason
    codes of acknowledgements, UNSUBACK and DISCONNECT.  Raises LocalError for a packet that
    decode would refuse.
    """
    cdef uint8_t small[SMALL]
    cdef uint8_t kind, level
    cdef size_t n
    cdef tbf_status status
    cdef bytes out
    number = TYPE_OF.get(type(packet))
    if number is None:
        raise LocalError(f"not an MQTT packet: {type(packet).__name__}")
    kind = number
    level = checked_level(packet.protocol_version if kind == TBF_MQTT_CONNECT else version)
    try:
        status = write(small, SMALL, &n, packet, kind, level)
        if status == TBF_ENOSPACE:
            out = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>n)
            status = write(<uint8_t *>PyBytes_AS_STRING(out), n, &n, packet, kind, level)
        else:
            out = PyBytes_FromStringAndSize(<const char *>small, <Py_ssize_t>min(n, <size_t>SMALL))
    except (OverflowError, ValueError) as error:
        # A number outside its field, or text that UTF-8 does not have.
        raise LocalError(f"{type(packet).__name__} does not fit MQTT: {error}") from error
    if status == TBF_ETOOBIG:
        raise LocalError(f"{type(packet).__name__}: a field or the packet is too long")
    if status != TBF_OK or reread(out, level) != TBF_OK:
        raise LocalError(f"{type(packet).__name__} is not valid in MQTT level {level}")
    return out
