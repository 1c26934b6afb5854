"""Pages: small chunks of neighbouring devices in one value (layout in tbf_page.h)."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from tbfast._ext.batch cimport TBF_EVERSION, TBF_OK, tbf_span, tbf_status
from tbfast._ext.packer cimport chunk_key
from tbfast._ext.page cimport TBF_PAGE_DEVICES, tbf_is_page, tbf_page, tbf_page_open
from tbfast.errors import StoreError

DEVICES = TBF_PAGE_DEVICES


cdef tbf_span span_of(bytes value):
    cdef tbf_span span
    span.p = <const uint8_t *>PyBytes_AS_STRING(value)
    span.n = <size_t>PyBytes_GET_SIZE(value)
    return span


cdef int open_page(bytes value, tbf_page *page) except -1:
    cdef tbf_status status = tbf_page_open(span_of(value), page)
    if status == TBF_EVERSION:
        raise StoreError("page of chunks has a version that this build does not know")
    if status != TBF_OK:
        raise StoreError("page of chunks is damaged")
    return 0


cdef bytes chunk_at(const tbf_page *page, size_t i):
    return PyBytes_FromStringAndSize(
        <const char *>page.entries[i].chunk.p, <Py_ssize_t>page.entries[i].chunk.n)


def is_page(bytes value not None):
    """Whether a stored value is a page; else it is a chunk."""
    return tbf_is_page(span_of(value))


def first_device(uint64_t device):
    """The device whose number is in the key of the page that a device's chunk may be in."""
    return device - device % TBF_PAGE_DEVICES


def unpack(uint64_t first, bytes value not None):
    """[(device, chunk), ...] of a page stored under the device `first`, in order; StoreError."""
    cdef tbf_page page
    cdef size_t i
    open_page(value, &page)
    return [(first + page.entries[i].place, chunk_at(&page, i)) for i in range(page.count)]


def collect(uint64_t first, uint32_t run, bytes value not None, dict held not None):
    """Appends (run, key that it would have by itself, chunk) to held[device] for each of a page.

    StoreError as of `unpack`; then nothing was appended.
    """
    cdef tbf_page page
    cdef size_t i
    cdef uint64_t device
    open_page(value, &page)
    for i in range(page.count):
        device = first + page.entries[i].place
        chunk = (run, chunk_key(device, 0, run), chunk_at(&page, i))
        mine = held.get(device)
        if mine is None:
            held[device] = [chunk]
        else:
            (<list>mine).append(chunk)


def devices(uint64_t first, bytes value not None):
    """The devices in a page stored under the device `first`, in order; StoreError."""
    cdef tbf_page page
    cdef size_t i
    open_page(value, &page)
    return [first + page.entries[i].place for i in range(page.count)]


def find(uint64_t device, bytes value not None):
    """A device's chunk in the page that it would be in, None = it has none; StoreError."""
    cdef tbf_page page
    cdef size_t i
    open_page(value, &page)
    for i in range(page.count):
        if page.entries[i].place == device % TBF_PAGE_DEVICES:
            return chunk_at(&page, i)
    return None
