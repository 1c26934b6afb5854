"""Answers with every value as a JSON string (REST spec 7)."""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc

from tbfast._ext.batch cimport tbf_span, tbf_status, TBF_ENOSPACE, TBF_OK

cdef extern from "tbf_stringify.h" nogil:
    tbf_status tbf_stringify(tbf_span text, uint8_t *out, size_t room, size_t *written)


def stringified(bytes text not None):
    """The answer of a reader, {"key":[{"ts":1,"value":2},..],..}, with strings for values.

    Strings and null stay. ValueError for text of another form. The GIL is released meanwhile.
    """
    cdef tbf_span span
    cdef tbf_status status
    cdef uint8_t *out
    cdef size_t written = 0
    cdef size_t room
    span.p = <const uint8_t *><const char *>text
    span.n = <size_t>len(text)
    room = span.n + span.n // 4 + 64  # two quotes around each value, seldom escapes
    while True:
        with nogil:
            out = <uint8_t *>malloc(room)
            status = TBF_OK
            if out != NULL:
                status = tbf_stringify(span, out, room, &written)
        if out == NULL:
            raise MemoryError("no memory for an answer")
        try:
            if status == TBF_OK:
                return PyBytes_FromStringAndSize(<char *>out, <Py_ssize_t>written)
            if status != TBF_ENOSPACE:
                raise ValueError("the text is no answer of a reader")
        finally:
            free(out)
        room *= 2
