"""MQTT bytes to packets, over the C parser (MQTT spec 1.2); public in tbfast.codec.mqtt."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Resize
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

from tbfast._ext.batch cimport (
    TBF_EMALFORMED, TBF_ETOOBIG, TBF_MORE, TBF_OK, tbf_span, tbf_status,
)

from tbfast.errors import LocalError, PeerError
from tbfast.model.mqtt import (
    PACKET_TYPES, PROPERTY_FIELDS, Connack, Connect, Properties, Publish, Subscription, Will,
)


class MalformedPacket(PeerError):
    """Bytes that no MQTT packet of this version may have (MQTT spec 1.2)."""

    def __init__(self, message):
        super().__init__(message, code=0x81)


class PacketTooLarge(PeerError):
    """The declared Remaining Length is above the limit; known before the body arrives."""

    def __init__(self, message):
        super().__init__(message, code=0x95)


class UnsupportedProtocol(PeerError):
    """CONNECT of another protocol or level: closed without an answer, so there is no code."""


cdef tuple TYPES = (None, *PACKET_TYPES)
cdef tuple NAMES = tuple(PROPERTY_FIELDS.get(number) for number in range(43))
cdef enum:
    SUBSCRIPTION_IDENTIFIER = 11


cdef inline str text(tbf_span s):
    return PyUnicode_DecodeUTF8(<const char *>s.p, <Py_ssize_t>s.n, NULL)


cdef inline bytes raw(tbf_span s):
    return PyBytes_FromStringAndSize(<const char *>s.p, <Py_ssize_t>s.n)


cdef object properties_of(tbf_span block):
    """Properties of a checked block; None if it is empty."""
    cdef tbf_property prop
    cdef tbf_form form
    cdef dict fields
    cdef list users = [], identifiers = []
    if block.n == 0:
        return None
    fields = {}
    while tbf_mqtt_next_property(&block, &prop) == TBF_OK:
        form = tbf_mqtt_property_form(prop.id)
        if form == TBF_FORM_PAIR:
            users.append((text(prop.text), text(prop.value)))
        elif prop.id == SUBSCRIPTION_IDENTIFIER:
            identifiers.append(prop.number)
        elif form == TBF_FORM_TEXT:
            fields[NAMES[prop.id]] = text(prop.text)
        elif form == TBF_FORM_BINARY:
            fields[NAMES[prop.id]] = raw(prop.text)
        else:
            fields[NAMES[prop.id]] = prop.number
    return Properties(user_properties=tuple(users), subscription_identifiers=tuple(identifiers),
                      **fields)


cdef object refuse(const tbf_frame *f, tbf_status status):
    if status == TBF_EPROTOCOL:
        raise UnsupportedProtocol("unknown protocol name or level")
    raise MalformedPacket(f"malformed {TYPES[f.type].__name__.upper()}")


cdef object publish_of(const tbf_frame *f, uint8_t version):
    cdef tbf_publish p
    if tbf_mqtt_publish(f, version, &p) != TBF_OK:
        return refuse(f, TBF_EMALFORMED)
    return Publish(text(p.topic), raw(p.payload), p.qos, p.retain, p.dup,
                   p.packet_id if p.qos > 0 else None, properties_of(p.props))


cdef object connect_of(const tbf_frame *f):
    cdef tbf_connect c
    cdef tbf_status status = tbf_mqtt_connect(f, &c)
    if status != TBF_OK:
        return refuse(f, status)
    will = None
    if c.has_will:
        will = Will(text(c.will_topic), raw(c.will_payload), c.will_qos, c.will_retain,
                    properties_of(c.will_props))
    return Connect(c.version, text(c.client_id), c.clean_start, c.keep_alive,
                   text(c.username) if c.has_username else None,
                   raw(c.password) if c.has_password else None, will, properties_of(c.props))


cdef object ack_of(const tbf_frame *f, uint8_t version):
    cdef tbf_ack a
    if tbf_mqtt_ack(f, version, &a) != TBF_OK:
        return refuse(f, TBF_EMALFORMED)
    return TYPES[f.type](a.packet_id, a.reason, properties_of(a.props))


cdef object subscribe_of(const tbf_frame *f, uint8_t version):
    cdef tbf_subscribe s
    cdef tbf_subscription e
    cdef list entries = []
    if tbf_mqtt_subscribe(f, version, &s) != TBF_OK:
        return refuse(f, TBF_EMALFORMED)
    while tbf_mqtt_next_filter(&s.filters, f.type, &e) == TBF_OK:
        if f.type == TBF_MQTT_SUBSCRIBE:
            entries.append(Subscription(text(e.filter), e.options & 3, (e.options & 4) != 0,
                                        (e.options & 8) != 0, e.options >> 4))
        else:
            entries.append(text(e.filter))
    return TYPES[f.type](s.packet_id, tuple(entries), properties_of(s.props))


cdef object suback_of(const tbf_frame *f, uint8_t version):
    cdef tbf_suback s
    if tbf_mqtt_suback(f, version, &s) != TBF_OK:
        return refuse(f, TBF_EMALFORMED)
    return TYPES[f.type](s.packet_id, tuple(raw(s.codes)), properties_of(s.props))


cdef object connack_of(const tbf_frame *f, uint8_t version):
    cdef tbf_connack c
    if tbf_mqtt_connack(f, version, &c) != TBF_OK:
        return refuse(f, TBF_EMALFORMED)
    return Connack(c.session_present, c.reason, properties_of(c.props))


cdef object reason_of(const tbf_frame *f, uint8_t version):
    cdef tbf_reason r
    if tbf_mqtt_reason(f, version, &r) != TBF_OK:
        return refuse(f, TBF_EMALFORMED)
    return TYPES[f.type](r.reason, properties_of(r.props))


cdef object packet_of(const tbf_frame *f, uint8_t version):
    cdef uint8_t kind = f.type
    if kind == TBF_MQTT_PUBLISH:
        return publish_of(f, version)
    if TBF_MQTT_PUBACK <= kind <= TBF_MQTT_PUBCOMP:
        return ack_of(f, version)
    if kind == TBF_MQTT_CONNECT:
        return connect_of(f)
    if kind == TBF_MQTT_CONNACK:
        return connack_of(f, version)
    if kind == TBF_MQTT_SUBSCRIBE or kind == TBF_MQTT_UNSUBSCRIBE:
        return subscribe_of(f, version)
    if kind == TBF_MQTT_SUBACK or kind == TBF_MQTT_UNSUBACK:
        return suback_of(f, version)
    if kind == TBF_MQTT_DISCONNECT or kind == TBF_MQTT_AUTH:
        return reason_of(f, version)
    return TYPES[kind]()


cdef uint8_t checked_level(object version) except 255:
    if version not in (3, 4, 5):
        raise LocalError(f"no such MQTT protocol level: {version!r}")
    return version


cdef tbf_status frame_of(const uint8_t *p, size_t n, size_t max_remaining, tbf_frame *f) except *:
    """TBF_OK or TBF_MORE; raises for the rest."""
    cdef tbf_status status = tbf_mqtt_frame(p, n, max_remaining, f)
    if status == TBF_ETOOBIG:
        raise PacketTooLarge(f"{f.total} bytes, limit {max_remaining}")
    if status == TBF_EMALFORMED:
        raise MalformedPacket("malformed fixed header")
    return status


cdef class Decoder:
    """Packets out of a byte stream.

    max_remaining: bound of the Remaining Length, bytes.  version: 3, 4 or 5; 0 means that the
    first CONNECT decides, and until then packets are read as 3.1.1 (as ThingsBoard does).
    At most one incomplete packet is kept; its memory grows with what was received.
    """

    cdef size_t max_remaining
    cdef uint8_t _version
    cdef readonly object failed
    cdef bytearray partial

    def __cinit__(self, *, size_t max_remaining, version=0):
        self.max_remaining = max_remaining
        self.version = version

    @property
    def version(self):
        """Protocol level packets are read by; 0 while unknown."""
        return self._version

    @version.setter
    def version(self, value):
        self._version = 0 if value == 0 else checked_level(value)

    @property
    def buffered(self):
        """Bytes of the incomplete packet."""
        return 0 if self.partial is None else len(self.partial)

    def feed(self, data):
        """Packets completed by data.

        A bad packet ends the stream: its error is kept in ``failed``.  Packets in front of it are
        returned, and the error is raised by the next call; with none in front it is raised now.
        Raises MalformedPacket, PacketTooLarge, UnsupportedProtocol.
        """
        cdef Py_buffer view
        cdef list packets = []
        if self.failed is not None:
            raise self.failed
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            self.read(<const uint8_t *>view.buf, <size_t>view.len, packets)
        except PeerError as error:
            self.failed = error
            self.partial = None
            if not packets:
                raise
        finally:
            PyBuffer_Release(&view)
        return packets

    cdef int read(self, const uint8_t *p, size_t n, list packets) except -1:
        cdef tbf_frame f
        cdef size_t used
        if self.partial is not None:
            used = self.complete(p, n, packets)
            p += used
            n -= used
        while n > 0:
            if frame_of(p, n, self.max_remaining, &f) == TBF_MORE:
                self.partial = bytearray()
                self.keep(p, n)
                return 0
            self.take(&f, packets)
            p += f.total
            n -= f.total
        return 0

    cdef Py_ssize_t complete(self, const uint8_t *p, size_t n, list packets) except -1:
        """Moves bytes to the incomplete packet until it is whole or they are used up.

        Returns how many were used: never one that belongs to the next packet.
        """
        cdef tbf_frame f
        cdef size_t used = 0, have, step
        while True:
            have = <size_t>len(self.partial)
            if frame_of(<const uint8_t *>PyByteArray_AS_STRING(self.partial), have,
                        self.max_remaining, &f) == TBF_OK:
                self.take(&f, packets)
                self.partial = None
                return <Py_ssize_t>used
            step = min(n - used, f.total - have if f.total > 0 else 1)
            if step == 0:
                return <Py_ssize_t>used
            self.keep(p + used, step)
            used += step

    cdef int keep(self, const uint8_t *p, size_t n) except -1:
        cdef Py_ssize_t have = len(self.partial)
        PyByteArray_Resize(self.partial, have + <Py_ssize_t>n)
        memcpy(PyByteArray_AS_STRING(self.partial) + have, p, n)
        return 0

    cdef int take(self, const tbf_frame *f, list packets) except -1:
        packet = packet_of(f, self._version)
        if self._version == 0 and f.type == TBF_MQTT_CONNECT:
            self._version = packet.protocol_version
        packets.append(packet)
        return 0


def decode(frame, version):
    """The one packet that frame is, whole; CONNECT brings its own version.

    Raises MalformedPacket, UnsupportedProtocol.
    """
    cdef Py_buffer view
    cdef tbf_frame f
    cdef uint8_t level = checked_level(version)
    PyObject_GetBuffer(frame, &view, PyBUF_SIMPLE)
    try:
        if frame_of(<const uint8_t *>view.buf, <size_t>view.len, TBF_MQTT_REMAINING_MAX,
                    &f) == TBF_MORE or f.total != <size_t>view.len:
            raise MalformedPacket("not exactly one packet")
        return packet_of(&f, level)
    finally:
        PyBuffer_Release(&view)


def frame_length(data, size_t max_remaining):
    """Bytes of the packet at the front of data, 0 while it is not complete.

    Raises MalformedPacket, PacketTooLarge: before the body arrives, from the fixed header alone.
    """
    cdef Py_buffer view
    cdef tbf_frame f
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if frame_of(<const uint8_t *>view.buf, <size_t>view.len, max_remaining, &f) == TBF_MORE:
            return 0
        return f.total
    finally:
        PyBuffer_Release(&view)


def scan_publishes(data, version):
    """Number of PUBLISH packets at the front of data; cuts and checks them, makes no object."""
    cdef Py_buffer view
    cdef tbf_frame f
    cdef tbf_publish p
    cdef uint8_t level = checked_level(version)
    cdef size_t at = 0, n, count = 0
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        n = <size_t>view.len
        with nogil:
            while tbf_mqtt_frame(<const uint8_t *>view.buf + at, n - at, TBF_MQTT_REMAINING_MAX,
                                 &f) == TBF_OK:
                if f.type != TBF_MQTT_PUBLISH or tbf_mqtt_publish(&f, level, &p) != TBF_OK:
                    break
                at += f.total
                count += 1
        return count
    finally:
        PyBuffer_Release(&view)
