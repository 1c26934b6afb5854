/* See tbf_rate.h. */
#include "tbf_rate.h"

#define NS_PER_S 1000000000u

static uint64_t half_of(uint64_t generation) { return generation >> 1 & 1; }

unsigned tbf_rate_next_half(const tbf_rate_page *page) {
    uint64_t generation = __atomic_load_n(&page->generation, __ATOMIC_RELAXED);
    return (unsigned)half_of((generation | 1) + 1);
}

void tbf_rate_write(tbf_rate_page *page, const tbf_rate_limits *limits) {
    /* Odd already: whoever wrote before was killed in the middle. */
    uint64_t odd = __atomic_load_n(&page->generation, __ATOMIC_RELAXED) | 1;
    __atomic_store_n(&page->generation, odd, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    page->limits = *limits;
    __atomic_store_n(&page->generation, odd + 1, __ATOMIC_RELEASE);
}

static void lay_out(tbf_rate_view *view) {
    view->tenant_cells = view->device_cells = 0;
    for (unsigned scope = 0; scope < TBF_RATE_SCOPES; scope++) {
        uint32_t *cells = scope == TBF_RATE_TENANT ? &view->tenant_cells : &view->device_cells;
        for (unsigned kind = 0; kind < TBF_RATE_KINDS; kind++) {
            view->first[scope][kind] = *cells;
            const tbf_rate_pair *pairs = view->limits.pairs[scope][kind];
            for (unsigned i = 0; i < TBF_RATE_PAIRS && pairs[i].capacity > 0; i++) {
                ++*cells;
            }
        }
    }
    view->on = view->tenant_cells + view->device_cells > 0;
}

bool tbf_rate_read(const tbf_rate_page *page, uint64_t *cells, tbf_rate_view *view) {
    uint64_t before = __atomic_load_n(&page->generation, __ATOMIC_ACQUIRE);
    if (before & 1) {
        return false;
    }
    tbf_rate_limits limits = page->limits;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (__atomic_load_n(&page->generation, __ATOMIC_RELAXED) != before) {
        return false;
    }
    view->generation = before;
    view->limits = limits;
    view->cells = cells + half_of(before) * TBF_RATE_CELLS;
    lay_out(view);
    return true;
}

static uint64_t period_ns(tbf_rate_pair pair) { return (uint64_t)pair.seconds * NS_PER_S; }

/* tokens * period / capacity, at least 1; tokens <= capacity, so that no product overflows. */
static uint64_t cost_ns(tbf_rate_pair pair, uint32_t tokens) {
    uint64_t whole = period_ns(pair) / pair.capacity, rest = period_ns(pair) % pair.capacity;
    uint64_t cost = tokens * whole + tokens * rest / pair.capacity;
    return cost > 0 || tokens == 0 ? cost : 1;
}

/* Where the cell would be after that; false: not now. */
static bool fits(uint64_t full_at, tbf_rate_pair pair, uint64_t cost, uint64_t now, uint64_t *after,
                 int64_t *wait_ns) {
    *after = (full_at > now ? full_at : now) + cost;
    uint64_t latest = now + period_ns(pair);
    if (*after > latest) {
        *wait_ns = (int64_t)(*after - latest);
        return false;
    }
    return true;
}

bool tbf_rate_take(uint64_t *cell, tbf_rate_pair pair, uint32_t tokens, int64_t now_ns,
                   int64_t *wait_ns) {
    if (tokens > pair.capacity) {
        *wait_ns = TBF_RATE_NEVER;
        return false;
    }
    uint64_t cost = cost_ns(pair, tokens), after;
    uint64_t full_at = __atomic_load_n(cell, __ATOMIC_RELAXED);
    do {
        if (!fits(full_at, pair, cost, (uint64_t)now_ns, &after, wait_ns)) {
            return false;
        }
    } while (!__atomic_compare_exchange_n(cell, &full_at, after, true, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
    return true;
}

/* How long to wait until the tokens fit in this bucket; 0 = they do now. */
static int64_t wait_of(const uint64_t *cell, tbf_rate_pair pair, uint32_t tokens, int64_t now_ns) {
    uint64_t copy = __atomic_load_n(cell, __ATOMIC_RELAXED);
    int64_t wait_ns = 0;
    return tbf_rate_take(&copy, pair, tokens, now_ns, &wait_ns) ? 0 : wait_ns;
}

/* All buckets of one limit, or none; the time to wait is that of the slowest. */
static bool take_all(const tbf_rate_pair *pairs, uint64_t *const *cells, unsigned count,
                     uint32_t tokens, int64_t now_ns, int64_t *wait_ns) {
    unsigned taken = 0;
    while (taken < count && tbf_rate_take(cells[taken], pairs[taken], tokens, now_ns, wait_ns)) {
        taken++;
    }
    if (taken == count) {
        return true;
    }
    for (unsigned i = taken + 1; i < count; i++) {
        int64_t other_ns = wait_of(cells[i], pairs[i], tokens, now_ns);
        *wait_ns = other_ns > *wait_ns ? other_ns : *wait_ns;
    }
    while (taken-- > 0) {
        (void)__atomic_fetch_sub(cells[taken], cost_ns(pairs[taken], tokens), __ATOMIC_RELAXED);
    }
    return false;
}

static bool take_limit(const tbf_rate_view *view, tbf_rate_scope scope, tbf_rate_kind kind,
                       uint64_t device, uint32_t tokens, int64_t now_ns,
                       tbf_rate_refusal *refusal) {
    const tbf_rate_pair *pairs = view->limits.pairs[scope][kind];
    uint64_t at = view->first[scope][kind];
    if (scope != TBF_RATE_TENANT) {
        at += view->tenant_cells + device * view->device_cells;
    }
    uint64_t *cells[TBF_RATE_PAIRS];
    unsigned count = 0;
    while (count < TBF_RATE_PAIRS && pairs[count].capacity > 0) {
        cells[count] = &view->cells[(at + count) % TBF_RATE_CELLS];
        count++;
    }
    if (take_all(pairs, cells, count, tokens, now_ns, &refusal->wait_ns)) {
        return true;
    }
    refusal->scope = (uint8_t)scope;
    refusal->kind = (uint8_t)kind;
    refusal->tokens = tokens;
    return false;
}

bool tbf_rate_message(const tbf_rate_view *view, tbf_rate_scope scope, uint64_t device,
                      uint32_t points, int64_t now_ns, tbf_rate_refusal *refusal) {
    const tbf_rate_scope scopes[] = {TBF_RATE_TENANT, scope};
    for (unsigned i = 0; i < 2; i++) {
        tbf_rate_kind kind = points > 0 ? TBF_RATE_TELEMETRY : TBF_RATE_MESSAGES;
        if (!take_limit(view, scopes[i], kind, device, 1, now_ns, refusal) ||
            (points > 0 &&
             !take_limit(view, scopes[i], TBF_RATE_POINTS, device, points, now_ns, refusal))) {
            return false;
        }
    }
    return true;
}
