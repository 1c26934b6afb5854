/* Points as the JSON text of an answer: {"ts":1764000000000,"value":21.5},... */
#ifndef TBF_POINTS_H
#define TBF_POINTS_H

#include "tbf_chunk.h"

/* Bytes that tbf_points_text may write for these points. */
size_t tbf_points_bound(const tbf_cell *cells, size_t n);

/* Writes points with a comma after each, values in their JSON type or, with `strings`, as strings
 * (REST spec 7).  Stops before a double whose shortest text it does not know: *done points are
 * written, and bytes are returned. */
size_t tbf_points_text(uint8_t *out, const int64_t *ts, const tbf_cell *cells, size_t n,
                       bool strings, size_t *done);

/* What is around a value: tbf_point_head writes at most TBF_POINT_HEAD bytes. */
#define TBF_POINT_HEAD 40u
size_t tbf_point_head(uint8_t *out, int64_t ts);

#endif
