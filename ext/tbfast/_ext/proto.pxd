# C declarations of ext/c/tbf_proto.h, and the owner of a compiled schema's memory.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from tbfast._ext.batch cimport Batch, tbf_batch, tbf_kind, tbf_span, tbf_status
from tbfast._ext.tbjson cimport tbf_json_opts, tbf_json_result

cdef extern from "tbf_proto.h" nogil:
    ctypedef struct tbf_proto_table:
        uint32_t max_depth
        uint32_t max_fields
        uint32_t max_printed
    tbf_status tbf_proto_load(tbf_span bytes, tbf_proto_table *out)
    tbf_status tbf_proto_rows(tbf_batch *b, const tbf_proto_table *t, uint64_t device,
                              tbf_kind kind, int64_t now_ms, tbf_span payload,
                              const tbf_json_opts *opts, tbf_json_result *result)
    tbf_status tbf_proto_print(const tbf_proto_table *t, tbf_span payload, uint8_t *out,
                               size_t cap, size_t *n, const char **error)

cdef class Table:
    cdef tbf_proto_table t
    cdef uint8_t *memory
    cdef readonly size_t nbytes

# TBF_OK or TBF_EREJECT; the batch has grown as needed (MemoryError at its bound).
cdef tbf_status append_proto(Batch batch, Table table, uint64_t device, int64_t now_ms,
                             const uint8_t *p, size_t n, bint attributes,
                             const tbf_json_opts *opts, tbf_json_result *result) except *
