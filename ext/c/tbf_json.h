/* Telemetry JSON: payload bytes to rows in one pass (MQTT spec 3.1-3.3).
 *
 * The strict pass takes RFC 8259 text; whatever it cannot take goes once through the lenient pass
 * (unquoted names, comments, ...).  Both follow the same typing rules.  A payload is applied whole
 * or not at all: any status but TBF_OK leaves the batch exactly as it was. */
#ifndef TBF_JSON_H
#define TBF_JSON_H

#include "tbf_batch.h"

typedef struct {
    uint32_t max_depth;  /* nesting levels; deeper is refused (255) */
    uint32_t max_keys;   /* members of one object (10,000) */
    uint32_t max_string; /* characters of a string value, 0 = off */
    bool type_cast;      /* numbers in strings become numbers */
    uint32_t max_plain;  /* characters a number may need because of its exponent (4,096) */
} tbf_json_opts;

typedef struct {
    uint32_t records, points; /* appended by this payload */
    uint32_t bad_utf8;        /* sequences replaced by U+FFFD */
    size_t error_at;          /* byte offset of the refusal */
    const char *error;        /* fixed words for logs and reason strings, never peer data */
} tbf_json_result;

/* A telemetry payload: object, {"ts","values"}, or an array of either.  Records without a time get
 * now_ms.  TBF_OK; TBF_EREJECT (see result->error); TBF_ENOSPACE (grow b->buf, call again). */
tbf_status tbf_json_telemetry(tbf_batch *b, uint64_t device, int64_t now_ms, tbf_span payload,
                              const tbf_json_opts *opts, tbf_json_result *result);
/* An attributes payload: one object; one record of kind TBF_KIND_CLIENT_ATTR at now_ms. */
tbf_status tbf_json_attributes(tbf_batch *b, uint64_t device, int64_t now_ms, tbf_span payload,
                               const tbf_json_opts *opts, tbf_json_result *result);

#endif
