/* Protobuf payloads by a compiled schema: rows, and canonical JSON text (MQTT spec 7.3).
 *
 * The table (made by tbfast/codec/proto_table.py) is little-endian 32-bit words:
 *   head      tbf_proto_head
 *   messages  tbf_proto_message *         fields of a message are contiguous, by number
 *   fields    tbf_proto_field *
 *   dense     field of number 1, 2, .. of a message: index into its fields + 1, 0 = none
 *   enums     tbf_proto_enum *            values by number
 *   values    tbf_proto_value *
 *   names     ASCII, without ends
 *
 * Reading follows Protobuf: the last of several values counts, sub-messages that come in parts are
 * merged, unknown fields and fields of an unexpected wire type are skipped, repeated numbers may
 * come packed or not, setting a member of a oneof clears the others.  Nothing allocates: scratch
 * memory is the free end of the caller's buffer. */
#ifndef TBF_PROTO_H
#define TBF_PROTO_H

#include "tbf_json.h"

#define TBF_PROTO_MAGIC 0x31504254u /* "TBP1" */

/* Numbers of descriptor.proto. */
typedef enum {
    TBF_PROTO_DOUBLE = 1,
    TBF_PROTO_FLOAT = 2,
    TBF_PROTO_INT64 = 3,
    TBF_PROTO_UINT64 = 4,
    TBF_PROTO_INT32 = 5,
    TBF_PROTO_FIXED64 = 6,
    TBF_PROTO_FIXED32 = 7,
    TBF_PROTO_BOOL = 8,
    TBF_PROTO_STRING = 9,
    TBF_PROTO_MESSAGE = 11,
    TBF_PROTO_BYTES = 12,
    TBF_PROTO_UINT32 = 13,
    TBF_PROTO_ENUM = 14,
    TBF_PROTO_SFIXED32 = 15,
    TBF_PROTO_SFIXED64 = 16,
    TBF_PROTO_SINT32 = 17,
    TBF_PROTO_SINT64 = 18
} tbf_proto_kind;
#define TBF_PROTO_KINDS 19u

#define TBF_PROTO_REPEATED 1u
#define TBF_PROTO_PRESENCE 2u /* unset differs from the default */

#define TBF_PROTO_ENTRY 1u   /* a pair of a map: field 1 is the key, 2 the value */
#define TBF_PROTO_TIMED 2u   /* exactly an int64 `ts` with presence and a message `values` */
#define TBF_PROTO_AS_JSON 4u /* other fields named `ts` and `values`: read as JSON would be */

typedef struct {
    uint32_t magic, root;
    uint32_t message_count, field_count, dense_count, enum_count, value_count, names_len;
} tbf_proto_head;

typedef struct {
    uint32_t first_field, field_count;
    uint32_t first_dense, dense_count;
    uint32_t oneof_count;
    uint32_t flags;
} tbf_proto_message;

typedef struct {
    uint32_t number;
    uint32_t kind;
    uint32_t flags;
    uint32_t type; /* of an enum or message: its index */
    uint32_t name_off, name_len;
    uint32_t oneof; /* 1, 2, .. within the message; 0 = none */
} tbf_proto_field;

typedef struct {
    uint32_t first_value, value_count;
} tbf_proto_enum;

typedef struct {
    uint32_t number; /* two's complement */
    uint32_t name_off, name_len;
} tbf_proto_value;

typedef struct {
    tbf_proto_head head;
    const tbf_proto_message *messages;
    const tbf_proto_field *fields;
    const uint32_t *dense;
    const tbf_proto_enum *enums;
    const tbf_proto_value *values;
    const uint8_t *names;
    /* bounds of every payload */
    uint32_t max_depth;   /* messages within messages (32) */
    uint32_t max_fields;  /* of one message on the wire (100,000) */
    uint32_t max_printed; /* bytes of JSON text of one payload (4 MiB) */
} tbf_proto_table;

/* Checks a table and points into it; the bounds are the caller's to set.  TBF_OK or TBF_ECORRUPT.
 * bytes.p: aligned to 4. */
tbf_status tbf_proto_load(tbf_span bytes, tbf_proto_table *out);

/* Payload to rows, as if it were printed and read by tbf_json_telemetry or tbf_json_attributes.
 * Statuses as there. */
tbf_status tbf_proto_rows(tbf_batch *b, const tbf_proto_table *t, uint64_t device, tbf_kind kind,
                          int64_t now_ms, tbf_span payload, const tbf_json_opts *opts,
                          tbf_json_result *result);

/* Payload to compact JSON text at out; a map that repeats a key prints it as often.
 * TBF_OK; TBF_EREJECT (*error: fixed words); TBF_ENOSPACE (grow out, call again). */
tbf_status tbf_proto_print(const tbf_proto_table *t, tbf_span payload, uint8_t *out, size_t cap,
                           size_t *n, const char **error);

#endif
