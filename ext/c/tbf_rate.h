/* Rate limits that hold across processes (MQTT spec 8.1): token buckets kept as one arrival time.
 *
 * A bucket of C tokens refilled in S seconds is a 64-bit cell: the time at which it will be full
 * again (GCRA).  Taking n tokens moves that time by n * S / C; it fits if the bucket is then full
 * within S.  A cell of zero, or in the past, is a full bucket, so that nothing is ever refilled,
 * and memory nobody has touched is right from the start.
 *
 * The limits stand in a page, the cells behind it, all in memory shared by the node's processes.
 * One process writes the page; every process keeps a copy and looks at the generation before it
 * takes tokens.  New limits use the other half of the cells: their buckets are full. */
#ifndef TBF_RATE_H
#define TBF_RATE_H

#include "tbf_base.h"

#define TBF_RATE_PAIRS 4u       /* buckets of one limit */
#define TBF_RATE_CELLS 8388608u /* of one half; device numbers further apart share cells */
#define TBF_RATE_PAGE_BYTES 4096u
#define TBF_RATE_NEVER INT64_MAX

/* Whose buckets: every message counts for the tenant first, then for one of the others. */
typedef enum {
    TBF_RATE_TENANT = 0,
    TBF_RATE_DEVICE = 1,
    TBF_RATE_GATEWAY = 2,       /* devices behind a gateway, all together: its number */
    TBF_RATE_GATEWAY_DEVICE = 3 /* a gateway's own messages */
} tbf_rate_scope;
#define TBF_RATE_SCOPES 4u

/* What is counted: messages without values; messages with values, and then their values. */
typedef enum { TBF_RATE_MESSAGES = 0, TBF_RATE_TELEMETRY = 1, TBF_RATE_POINTS = 2 } tbf_rate_kind;
#define TBF_RATE_KINDS 3u

typedef struct {
    uint32_t capacity; /* tokens; 0 = no bucket here, nor after it */
    uint32_t seconds;  /* in which an empty bucket is full again */
} tbf_rate_pair;

typedef struct {
    tbf_rate_pair pairs[TBF_RATE_SCOPES][TBF_RATE_KINDS][TBF_RATE_PAIRS];
} tbf_rate_limits;

typedef struct {
    uint64_t generation; /* odd while the limits are being written */
    tbf_rate_limits limits;
} tbf_rate_page;

/* One process's view of the page. */
typedef struct {
    uint64_t generation; /* of the page when it was read */
    bool on;             /* any limit at all */
    uint64_t *cells;     /* the half in use */
    uint32_t tenant_cells, device_cells;
    uint32_t first[TBF_RATE_SCOPES][TBF_RATE_KINDS]; /* place among the tenant's or a device's */
    tbf_rate_limits limits;
} tbf_rate_view;

typedef struct {
    uint8_t scope, kind;
    uint32_t tokens;
    int64_t wait_ns; /* until it would fit; TBF_RATE_NEVER: the bucket is too small */
} tbf_rate_refusal;

/* Puts limits in force everywhere: full buckets.  Only one process calls it; the caller has made
 * the half that `tbf_rate_next_half` names zero. */
void tbf_rate_write(tbf_rate_page *page, const tbf_rate_limits *limits);
unsigned tbf_rate_next_half(const tbf_rate_page *page);

/* Takes a copy of the page; false: it is being written, the view stays as it was. */
bool tbf_rate_read(const tbf_rate_page *page, uint64_t *cells, tbf_rate_view *view);

static inline bool tbf_rate_is_stale(const tbf_rate_page *page, const tbf_rate_view *view) {
    return __atomic_load_n(&page->generation, __ATOMIC_ACQUIRE) != view->generation;
}

/* Takes `tokens` from one bucket; false: they do not fit now, *wait_ns says when they would. */
bool tbf_rate_take(uint64_t *cell, tbf_rate_pair pair, uint32_t tokens, int64_t now_ns,
                   int64_t *wait_ns);

/* Accounts one message of a device with so many points; false: it is over a limit, see *refusal.
 * Tokens that the limits before that one gave are gone (MQTT spec 8.1). */
bool tbf_rate_message(const tbf_rate_view *view, tbf_rate_scope scope, uint64_t device,
                      uint32_t points, int64_t now_ns, tbf_rate_refusal *refusal);

#endif
