"""Protobuf payloads by a compiled schema: rows of the open batch, and JSON text (MQTT spec 7.3)."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from tbfast import limits
from tbfast.errors import LocalError, PeerError

from tbfast._ext.batch cimport TBF_ENOSPACE, TBF_KIND_CLIENT_ATTR, TBF_KIND_TELEMETRY, TBF_OK
from tbfast._ext.tbjson cimport json_options

cdef int CODE_PAYLOAD_FORMAT_INVALID = 0x99  # MQTT 5 2.4; other protocols map it to their own

# Below this, giving the GIL up and taking it back costs more than the scan itself.
cdef size_t RELEASE_GIL_BYTES = 65536


cdef class Table:
    """A schema as C walks it; made by tbfast.codec.proto_table.

    LocalError for bytes that are no table.
    """

    def __cinit__(self, bytes table not None, *, uint32_t max_depth=limits.PROTO_MAX_DEPTH,
                  uint32_t max_fields=limits.PROTO_MAX_FIELDS,
                  uint32_t max_printed=limits.PROTO_PRINTED_BYTES):
        cdef tbf_span span
        self.nbytes = <size_t>len(table)
        self.memory = <uint8_t *>malloc(self.nbytes + 1)
        if self.memory == NULL:
            raise MemoryError("no memory for a schema")
        memcpy(self.memory, <const char *>table, self.nbytes)
        span.p = self.memory
        span.n = self.nbytes
        if max_depth < 1 or tbf_proto_load(span, &self.t) != TBF_OK:
            raise LocalError("this is no compiled schema")
        self.t.max_depth = max_depth
        self.t.max_fields = max_fields
        self.t.max_printed = max_printed

    def __dealloc__(self):
        free(self.memory)

    def print(self, payload):
        """The payload as canonical protobuf-JSON text; PeerError (0x99) if it is refused.

        A map that repeats a key on the wire prints it as often.
        """
        cdef Py_buffer view
        cdef tbf_span span
        cdef tbf_status status = TBF_ENOSPACE
        cdef uint8_t *out
        cdef size_t cap, n = 0
        cdef const char *error = NULL
        PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
        try:
            span.p = <const uint8_t *>view.buf
            span.n = <size_t>view.len
            cap = 4 * span.n + 4096
            while True:
                out = <uint8_t *>malloc(cap)
                if out == NULL:
                    raise MemoryError("no memory for a Protobuf payload")
                try:
                    status = tbf_proto_print(&self.t, span, out, cap, &n, &error)
                    if status == TBF_OK:
                        return PyBytes_FromStringAndSize(<char *>out, <Py_ssize_t>n)
                finally:
                    free(out)
                if status != TBF_ENOSPACE:
                    raise PeerError(error.decode("ascii"), code=CODE_PAYLOAD_FORMAT_INVALID)
                cap *= 2
        finally:
            PyBuffer_Release(&view)


cdef tbf_status append_proto(Batch batch, Table table, uint64_t device, int64_t now_ms,
                             const uint8_t *p, size_t n, bint attributes,
                             const tbf_json_opts *opts, tbf_json_result *result) except *:
    cdef tbf_span payload
    cdef tbf_status status
    cdef tbf_kind kind = TBF_KIND_CLIENT_ATTR if attributes else TBF_KIND_TELEMETRY
    payload.p = p
    payload.n = n
    while True:
        if n < RELEASE_GIL_BYTES:
            status = tbf_proto_rows(&batch.b, &table.t, device, kind, now_ms, payload, opts,
                                    result)
        else:
            with nogil:
                status = tbf_proto_rows(&batch.b, &table.t, device, kind, now_ms, payload, opts,
                                        result)
        if status != TBF_ENOSPACE:
            return status
        batch.grow()


def append(Batch batch not None, Table table not None, uint64_t device, object payload,
           int64_t now_ms, *, bint attributes=False, bint type_cast=True, uint32_t max_string=0,
           uint32_t max_depth=limits.JSON_MAX_DEPTH, uint32_t max_keys=limits.JSON_MAX_KEYS,
           uint32_t max_plain=limits.JSON_MAX_PLAIN_DIGITS):
    """Appends the record of a payload; returns (records, points) stored.

    Everything as tbjson.append_telemetry and append_attributes would do with the printed payload.
    """
    cdef tbf_json_opts opts = json_options(type_cast, max_string, max_depth, max_keys, max_plain)
    cdef tbf_json_result result
    cdef tbf_status status
    cdef Py_buffer view
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        status = append_proto(batch, table, device, now_ms, <const uint8_t *>view.buf,
                              <size_t>view.len, attributes, &opts, &result)
    finally:
        PyBuffer_Release(&view)
    if status != TBF_OK:
        raise PeerError(result.error.decode("ascii"), code=CODE_PAYLOAD_FORMAT_INVALID)
    return result.records, result.points
