"""MIN, MAX, AVG, SUM and COUNT by interval over what a range scan gathered (REST spec 7).

Of points with the same key and time only the last arrival counts.  Numbers win over strings; AVG
and SUM need a number, MIN and MAX a number or a string; booleans, JSON and bytes only count.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp

from tbfast.errors import LocalError, PeerError

from tbfast._ext.batch cimport (
    TBF_DOUBLE, TBF_INT64, TBF_STRING, tbf_span, tbf_type,
)
from tbfast._ext.chunk cimport (
    tbf_agg, tbf_agg_add, tbf_agg_init, tbf_agg_max, tbf_agg_min, tbf_agg_sum, tbf_agg_total,
    tbf_cell,
)
from tbfast._ext.series cimport RangeScan, Text, hit, tbf_point

cdef enum:
    BATCH = 128

cdef enum function:
    MIN
    MAX
    AVG
    SUM
    COUNT

_FUNCTIONS = {"MIN": MIN, "MAX": MAX, "AVG": AVG, "SUM": SUM, "COUNT": COUNT}


cdef bint replaces(const hit *a, const hit *b, int which) noexcept nogil:
    """Whether text a comes before b (MIN) or after it (MAX), byte by byte."""
    cdef int order = memcmp(a.bytes, b.bytes, min(a.n, b.n))
    if order == 0:
        order = -1 if a.n < b.n else (1 if a.n > b.n else 0)
    return order < 0 if which == MIN else order > 0


cdef const hit *add_bucket(tbf_agg *agg, const hit *hits, size_t n, int which) noexcept nogil:
    """Adds n hits up; returns the first or last string, NULL if there is none."""
    cdef tbf_cell cells[BATCH]
    cdef const hit *text = NULL
    cdef size_t at = 0, i, part
    tbf_agg_init(agg)
    while at < n:
        part = min(n - at, <size_t>BATCH)
        for i in range(part):
            cells[i].type = hits[at + i].type
            cells[i].scale = hits[at + i].scale
            if cells[i].type == TBF_DOUBLE:
                cells[i].f64 = hits[at + i].f64
            else:
                cells[i].i64 = hits[at + i].i64
                if cells[i].type == TBF_STRING and (
                    text == NULL or replaces(&hits[at + i], text, which)
                ):
                    text = &hits[at + i]
        tbf_agg_add(agg, cells, part)
        at += part
    return text


cdef bint result(const tbf_agg *agg, const hit *text, int which, tbf_point *out) noexcept nogil:
    """Value of a bucket; False if it has none."""
    cdef tbf_cell cell
    cdef bint found = agg.numbers > 0
    if which == COUNT:
        out.type = TBF_INT64
        out.i64 = <int64_t>agg.count
        return True
    if not found:
        if text == NULL or (which != MIN and which != MAX):
            return False
        out.type = TBF_STRING
        out.bytes.p = text.bytes
        out.bytes.n = text.n
        return True
    if which == AVG:
        out.type = TBF_DOUBLE
        out.f64 = tbf_agg_total(agg) / <double>agg.numbers
        return True
    if which == MIN:
        tbf_agg_min(agg, &cell)
    elif which == MAX:
        tbf_agg_max(agg, &cell)
    else:
        tbf_agg_sum(agg, &cell)
    out.type = <tbf_type>cell.type
    out.scale = cell.scale
    if cell.type == TBF_DOUBLE:
        out.f64 = cell.f64
    else:
        out.i64 = cell.i64
    return True


def aggregate_json(RangeScan scan not None, str aggregation not None, bounds not None,
                   uint64_t max_points):
    """{"key":[{"ts":..,"value":..},..],..}: one point for each bucket with a value, ascending.

    bounds: first times of the buckets and the end of the last, ascending; the scan is ascending,
    over that range and with a limit above max_points.  PeerError: a key has more points than that.
    A sum beyond the range of a double is null.
    """
    cdef Text text = Text()
    cdef tbf_span name
    cdef tbf_agg agg
    cdef tbf_point point
    cdef const hit *chosen
    cdef size_t i = 0, start, buckets = len(bounds) - 1, bucket, end
    cdef int64_t column
    cdef bint first_key = True, first_point
    cdef int which
    cdef int64_t *edges
    cdef bint has
    if aggregation not in _FUNCTIONS or len(bounds) < 2:
        raise LocalError(f"no aggregation {aggregation!r} over {len(bounds)} bounds")
    which = _FUNCTIONS[aggregation]
    scan._compact()
    edges = <int64_t *>malloc((buckets + 1) * sizeof(int64_t))
    if edges == NULL:
        raise MemoryError("no memory for an aggregation")
    try:
        for bucket in range(buckets + 1):
            edges[bucket] = bounds[bucket]
        text.raw(b"{", 1)
        while i < scan.count:
            column = scan.hits[i].column
            end = i
            with nogil:
                while end < scan.count and scan.hits[end].column == column:
                    end += 1
            raw_name = scan.names[column]
            if end - i > max_points:
                raise PeerError(
                    f"more than {max_points} points of key {raw_name.decode()[:64]!r} "
                    "between startTs and endTs; ask for a shorter time"
                )
            first_point = True
            bucket = 0
            while i < end:
                start = i
                with nogil:
                    while bucket + 1 < buckets and scan.hits[i].ts >= edges[bucket + 1]:
                        bucket += 1
                    while i < end and scan.hits[i].ts < edges[bucket + 1]:
                        i += 1
                    if i == start:  # at or after the last bound
                        i = end
                    chosen = add_bucket(&agg, &scan.hits[start], i - start, which)
                    has = result(&agg, chosen, which, &point)
                if not has:
                    continue
                if first_point:
                    if not first_key:
                        text.raw(b",", 1)
                    name.p = <const uint8_t *>PyBytes_AS_STRING(raw_name)
                    name.n = <size_t>len(raw_name)
                    text.string(name)
                    text.raw(b":[", 2)
                else:
                    text.raw(b",", 1)
                first_key = first_point = False
                text.raw(b'{"ts":', 6)
                # Half the width as unsigned: a range may be wider than int64.
                text.int64(edges[bucket] + <int64_t>(
                    (<uint64_t>edges[bucket + 1] - <uint64_t>edges[bucket]) // 2))
                text.raw(b',"value":', 9)
                if point.type == TBF_DOUBLE and not isfinite(point.f64):
                    text.raw(b"null", 4)
                else:
                    text.value(&point)
                text.raw(b"}", 1)
            if not first_point:
                text.raw(b"]", 1)
        text.raw(b"}", 1)
    finally:
        free(edges)
    return text.to_bytes()
