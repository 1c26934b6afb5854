"""Telemetry and attributes JSON to rows of the open batch (MQTT spec 3.1-3.3)."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer

from tbfast import limits
from tbfast.errors import PeerError

from tbfast._ext.batch cimport TBF_ENOSPACE, TBF_OK

cdef int CODE_PAYLOAD_FORMAT_INVALID = 0x99  # MQTT 5 2.4; other protocols map it to their own

# Below this, giving the GIL up and taking it back costs more than the scan itself.
cdef size_t RELEASE_GIL_BYTES = 65536

ctypedef tbf_status (*json_call)(tbf_batch *b, uint64_t device, int64_t now_ms, tbf_span payload,
                                 const tbf_json_opts *opts, tbf_json_result *result) noexcept nogil


cdef tbf_status append_json(Batch batch, uint64_t device, int64_t now_ms, const uint8_t *p,
                            size_t n, bint attributes, const tbf_json_opts *opts,
                            tbf_json_result *result) except *:
    cdef tbf_span payload
    cdef tbf_status status
    payload.p = p
    payload.n = n
    cdef json_call call = tbf_json_attributes if attributes else tbf_json_telemetry
    while True:
        if n < RELEASE_GIL_BYTES:
            status = call(&batch.b, device, now_ms, payload, opts, result)
        else:
            with nogil:
                status = call(&batch.b, device, now_ms, payload, opts, result)
        if status != TBF_ENOSPACE:
            return status
        batch.grow()


cdef tuple _append(Batch batch, uint64_t device, object payload, int64_t now_ms, bint attributes,
                   const tbf_json_opts *opts):
    cdef tbf_json_result result
    cdef tbf_status status
    cdef Py_buffer view  # a typed memoryview would cost more than a small payload's scan
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        status = append_json(batch, device, now_ms, <const uint8_t *>view.buf, <size_t>view.len,
                             attributes, opts, &result)
    finally:
        PyBuffer_Release(&view)
    if status != TBF_OK:
        raise PeerError(result.error.decode("ascii"), code=CODE_PAYLOAD_FORMAT_INVALID)
    return result.records, result.points


cdef tbf_json_opts json_options(bint type_cast, uint32_t max_string, uint32_t max_depth,
                                uint32_t max_keys, uint32_t max_plain):
    cdef tbf_json_opts opts
    opts.type_cast = type_cast
    opts.max_string = max_string
    opts.max_depth = max_depth
    opts.max_keys = max_keys
    opts.max_plain = max_plain
    return opts


def append_telemetry(Batch batch not None, uint64_t device, object payload,
                     int64_t now_ms, *, bint type_cast=True, uint32_t max_string=0,
                     uint32_t max_depth=limits.JSON_MAX_DEPTH,
                     uint32_t max_keys=limits.JSON_MAX_KEYS,
                     uint32_t max_plain=limits.JSON_MAX_PLAIN_DIGITS):
    """Appends the records of a telemetry payload; returns (records, points) stored.

    Records without a time get ``now_ms``.  PeerError (code 0x99, fixed words) if the payload is
    refused: the batch is then as it was.  MQTT spec 3.2.
    """
    cdef tbf_json_opts opts = json_options(type_cast, max_string, max_depth, max_keys, max_plain)
    return _append(batch, device, payload, now_ms, False, &opts)


def append_attributes(Batch batch not None, uint64_t device, object payload,
                      int64_t now_ms, *, bint type_cast=True, uint32_t max_string=0,
                      uint32_t max_depth=limits.JSON_MAX_DEPTH,
                      uint32_t max_keys=limits.JSON_MAX_KEYS,
                      uint32_t max_plain=limits.JSON_MAX_PLAIN_DIGITS):
    """Appends a client attributes payload as one record; returns (records, points) stored.

    Errors as ``append_telemetry``.  MQTT spec 4.1.
    """
    cdef tbf_json_opts opts = json_options(type_cast, max_string, max_depth, max_keys, max_plain)
    return _append(batch, device, payload, now_ms, True, &opts)
