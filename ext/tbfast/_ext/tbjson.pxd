# C declarations of ext/c/tbf_json.h, and the growing append for other modules.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tbfast._ext.batch cimport Batch, tbf_batch, tbf_span, tbf_status

cdef extern from "tbf_json.h" nogil:
    ctypedef struct tbf_json_opts:
        uint32_t max_depth
        uint32_t max_keys
        uint32_t max_string
        bint type_cast
        uint32_t max_plain
    ctypedef struct tbf_json_result:
        uint32_t records
        uint32_t points
        uint32_t bad_utf8
        size_t error_at
        const char *error
    tbf_status tbf_json_telemetry(tbf_batch *b, uint64_t device, int64_t now_ms, tbf_span payload,
                                  const tbf_json_opts *opts, tbf_json_result *result)
    tbf_status tbf_json_attributes(tbf_batch *b, uint64_t device, int64_t now_ms, tbf_span payload,
                                   const tbf_json_opts *opts, tbf_json_result *result)

# TBF_OK or TBF_EREJECT; the batch has grown as needed (MemoryError at its bound).
cdef tbf_status append_json(Batch batch, uint64_t device, int64_t now_ms, const uint8_t *p,
                            size_t n, bint attributes, const tbf_json_opts *opts,
                            tbf_json_result *result) except *

cdef tbf_json_opts json_options(bint type_cast, uint32_t max_string, uint32_t max_depth,
                                uint32_t max_keys, uint32_t max_plain)
