/* Row writer of the open batch; layout in tbf_batch.h. */
#include "tbf_batch.h"
#include "tbf_block.h"

/* Longest encoding of what precedes a record's points: device, time, point_bytes. */
#define RECORD_HEAD_MAX (3 * TBF_VARINT_MAX)
/* Longest encoding of what precedes a point's value: tag, and a scale byte or a length. */
#define POINT_HEAD_MAX (2 * TBF_VARINT_MAX + 1)

tbf_mark tbf_batch_mark(const tbf_batch *b) {
    return (tbf_mark){.len = b->len,
                      .min_ts = b->min_ts,
                      .max_ts = b->max_ts,
                      .record_count = b->record_count,
                      .point_count = b->point_count,
                      .dropped_records = b->dropped_records,
                      .key_count = b->keys->count,
                      .names_len = b->keys->names_len};
}

static size_t slot_of(const tbf_keys *k, const tbf_key *key) {
    size_t slot = (size_t)key->hash & k->slot_mask;
    while (&k->keys[k->slots[slot] - 1] != key) {
        slot = (slot + 1) & k->slot_mask;
    }
    return slot;
}

void tbf_batch_rollback(tbf_batch *b, const tbf_mark *m) {
    tbf_keys *k = b->keys;
    b->len = m->len;
    b->min_ts = m->min_ts;
    b->max_ts = m->max_ts;
    b->record_count = m->record_count;
    b->point_count = m->point_count;
    b->dropped_records = m->dropped_records;
    /* Newest first: nothing was inserted after it, so its slot can simply be freed. */
    while (k->count > m->key_count) {
        k->slots[slot_of(k, &k->keys[k->count - 1])] = 0;
        k->count--;
    }
    k->names_len = m->names_len;
    k->last = k->last <= k->count ? k->last : 0;
    b->stamp++; /* points of the abandoned record must not be found again */
}

void tbf_batch_clear(tbf_batch *b, int64_t base_ms) {
    b->len = 0;
    b->base_ms = base_ms;
    b->min_ts = INT64_MAX;
    b->max_ts = INT64_MIN;
    b->record_count = b->point_count = b->dropped_records = 0;
    b->stamp++;
}

/* A key that ThingsBoard's storage refuses (MQTT spec 3.3): blank, too long, template or markup. */
static bool key_is_bad(tbf_span name) {
    size_t units = 0;
    bool blank = true, braces = false, angle = false;
    for (size_t i = 0; i < name.n; i++) {
        uint8_t c = name.p[i];
        units += (c & 0xC0) != 0x80;
        units += c >= 0xF0; /* outside the BMP: two UTF-16 units */
        blank = blank && (c == ' ' || (c >= 9 && c <= 13));
        uint8_t next = i + 1 < name.n ? name.p[i + 1] : 0;
        if (c == '{' && next == '{') {
            braces = true;
        } else if (braces && c == '}' && next == '}') {
            return true;
        } else if (c == '<' &&
                   (next == '/' || next == '!' || ((next | 0x20) >= 'a' && (next | 0x20) <= 'z'))) {
            angle = true;
        } else if (angle && c == '>') {
            return true;
        }
    }
    return blank || units > TBF_KEY_MAX_UNITS;
}

static bool is_key(const tbf_keys *k, uint32_t number, tbf_span name) {
    const tbf_key *key = &k->keys[number - 1];
    return key->name_len == name.n && tbf_same_bytes(k->names + key->name_off, name.p, name.n);
}

/* Number of a key, defining it if there is room; 0 = write it inline. */
static uint32_t find_key(tbf_keys *k, tbf_span name) {
    uint64_t hash = tbf_hash(name.p, name.n, k->seed);
    size_t slot = (size_t)hash & k->slot_mask;
    for (uint32_t number; (number = k->slots[slot]) != 0; slot = (slot + 1) & k->slot_mask) {
        if (k->keys[number - 1].hash == hash && is_key(k, number, name)) {
            return number;
        }
    }
    if (key_is_bad(name) || k->count == k->cap || k->names_cap - k->names_len < name.n) {
        return 0;
    }
    memcpy(k->names + k->names_len, name.p, name.n);
    k->keys[k->count] =
        (tbf_key){.name_off = k->names_len, .name_len = (uint32_t)name.n, .hash = hash, .stamp = 0};
    k->names_len += (uint32_t)name.n;
    k->slots[slot] = ++k->count;
    return k->count;
}

/* The same, trying first the key that followed the previous one the last time. */
static inline uint32_t key_number(tbf_keys *k, tbf_span name) {
    uint32_t guess = k->last == 0 ? 0 : k->keys[k->last - 1].next;
    /* A rollback may have taken the guessed key away. */
    if (TBF_LIKELY(guess != 0 && guess <= k->count && is_key(k, guess, name))) {
        k->last = guess;
        return guess;
    }
    uint32_t number = find_key(k, name);
    if (number != 0) {
        if (k->last != 0) {
            k->keys[k->last - 1].next = number;
        }
        k->last = number;
    }
    return number;
}

tbf_status tbf_record_begin(tbf_batch *b, uint64_t device, tbf_kind kind, int64_t ts_ms) {
    if (b->cap - b->len < RECORD_HEAD_MAX) {
        return TBF_ENOSPACE;
    }
    uint8_t *p = b->buf + b->len;
    b->record_off = b->len;
    p = tbf_put_varint(p, device << 2 | (uint64_t)kind);
    p = tbf_put_varint(p, tbf_zigzag((int64_t)((uint64_t)ts_ms - (uint64_t)b->base_ms)));
    b->points_off = (size_t)(p - b->buf) + 1; /* one byte kept for the length */
    b->len = b->points_off;
    b->record_ts = ts_ms;
    b->record_points = 0;
    b->record_bad_key = false;
    b->inline_used = 0;
    b->stamp++;
    return TBF_OK;
}

/* A refused name whose value has since become null is not there any more. */
static bool bad_key_is_alive(const tbf_batch *b) {
    tbf_span points = {b->buf + b->points_off, b->len - b->points_off};
    tbf_point point;
    while (tbf_next_point(&points, &point) == TBF_OK) {
        if (point.key == 0 && !point.dead && key_is_bad(point.name)) {
            return true;
        }
    }
    return false;
}

tbf_status tbf_record_end(tbf_batch *b) {
    size_t n = b->len - b->points_off;
    bool refused = b->record_bad_key && bad_key_is_alive(b);
    if (b->record_points == 0 || refused) {
        b->dropped_records += refused;
        b->len = b->record_off;
        return TBF_OK;
    }
    if (n < 0x80) {
        b->buf[b->points_off - 1] = (uint8_t)n;
    } else {
        uint8_t head[TBF_VARINT_MAX];
        size_t head_n = (size_t)(tbf_put_varint(head, n) - head);
        if (b->cap - b->len < head_n - 1) {
            return TBF_ENOSPACE;
        }
        memmove(b->buf + b->points_off + head_n - 1, b->buf + b->points_off, n);
        memcpy(b->buf + b->points_off - 1, head, head_n);
        b->len += head_n - 1;
    }
    b->record_count++;
    b->point_count += b->record_points;
    b->min_ts = b->record_ts < b->min_ts ? b->record_ts : b->min_ts;
    b->max_ts = b->record_ts > b->max_ts ? b->record_ts : b->max_ts;
    return TBF_OK;
}

static void kill_point(tbf_batch *b, uint32_t off) {
    if ((b->buf[off] & TBF_POINT_DEAD) == 0) {
        b->buf[off] |= TBF_POINT_DEAD;
        b->record_points--;
    }
}

/* Finds the slot of an inline key of the current record; *found tells whether it is in use. */
static tbf_inline_slot *inline_slot(tbf_batch *b, tbf_span name, bool *found) {
    size_t slot = (size_t)tbf_hash(name.p, name.n, b->keys->seed) % TBF_INLINE_SLOTS;
    for (;; slot = (slot + 1) % TBF_INLINE_SLOTS) {
        tbf_inline_slot *s = &b->inline_slots[slot];
        if (s->stamp != b->stamp) {
            *found = false;
            return s;
        }
        /* An inline point: one tag byte (key 0), then its name. */
        uint64_t n = 0;
        const uint8_t *at = tbf_get_varint(b->buf + s->point_off + 1, b->buf + b->len, &n);
        if (at != NULL && n == name.n && memcmp(at, name.p, name.n) == 0) {
            *found = true;
            return s;
        }
    }
}

/* Writes the head of a point (tag, inline name) and returns where its value goes; NULL = no room
 * for head and `value_max` bytes.  Names that storage refuses mark the record and still parse. */
static uint8_t *point_begin(tbf_batch *b, tbf_span name, tbf_type type, size_t value_max) {
    if (b->cap - b->len < POINT_HEAD_MAX || b->cap - b->len - POINT_HEAD_MAX < value_max) {
        return NULL;
    }
    uint32_t number = key_number(b->keys, name);
    uint32_t off = (uint32_t)b->len;
    uint8_t *p = b->buf + b->len;
    if (TBF_LIKELY(number != 0)) {
        tbf_key *key = &b->keys->keys[number - 1];
        if (TBF_UNLIKELY(key->stamp == b->stamp)) {
            kill_point(b, key->point_off);
        }
        key->stamp = b->stamp;
        key->point_off = off;
        b->record_points++;
        return tbf_put_varint(p, (uint64_t)number << 4 | (uint64_t)type);
    }
    if (key_is_bad(name)) {
        b->record_bad_key = true;
    }
    if (b->cap - b->len - POINT_HEAD_MAX - value_max < name.n) {
        return NULL;
    }
    if (b->inline_used < TBF_INLINE_KEYS) {
        bool found;
        tbf_inline_slot *s = inline_slot(b, name, &found);
        if (found) {
            kill_point(b, s->point_off);
        } else {
            b->inline_used++;
        }
        *s = (tbf_inline_slot){.stamp = b->stamp, .point_off = off};
    }
    b->record_points++;
    *p++ = (uint8_t)type;
    p = tbf_put_varint(p, name.n);
    memcpy(p, name.p, name.n);
    return p + name.n;
}

static void point_end(tbf_batch *b, const uint8_t *p) { b->len = (size_t)(p - b->buf); }

tbf_status tbf_put_int64(tbf_batch *b, tbf_span name, int64_t v) {
    uint8_t *p = point_begin(b, name, TBF_INT64, TBF_VARINT_MAX);
    if (p == NULL) {
        return TBF_ENOSPACE;
    }
    point_end(b, tbf_put_varint(p, tbf_zigzag(v)));
    return TBF_OK;
}

tbf_status tbf_put_double(tbf_batch *b, tbf_span name, double v) {
    uint8_t *p = point_begin(b, name, TBF_DOUBLE, sizeof v);
    if (p == NULL) {
        return TBF_ENOSPACE;
    }
    memcpy(p, &v, sizeof v);
    point_end(b, p + sizeof v);
    return TBF_OK;
}

tbf_status tbf_put_decimal(tbf_batch *b, tbf_span name, int64_t mantissa, uint8_t scale) {
    uint8_t *p = point_begin(b, name, TBF_DECIMAL, 1 + TBF_VARINT_MAX);
    if (p == NULL) {
        return TBF_ENOSPACE;
    }
    *p++ = scale;
    point_end(b, tbf_put_varint(p, tbf_zigzag(mantissa)));
    return TBF_OK;
}

tbf_status tbf_put_bool(tbf_batch *b, tbf_span name, bool v) {
    uint8_t *p = point_begin(b, name, v ? TBF_TRUE : TBF_FALSE, 0);
    if (p == NULL) {
        return TBF_ENOSPACE;
    }
    point_end(b, p);
    return TBF_OK;
}

tbf_status tbf_put_blob(tbf_batch *b, tbf_span name, tbf_type type, tbf_span v) {
    uint8_t *p = point_begin(b, name, type, TBF_VARINT_MAX + v.n);
    if (p == NULL) {
        return TBF_ENOSPACE;
    }
    p = tbf_put_varint(p, v.n);
    if (v.n > 0) {
        memcpy(p, v.p, v.n);
    }
    point_end(b, p + v.n);
    return TBF_OK;
}

tbf_status tbf_put_null(tbf_batch *b, tbf_span name) {
    uint8_t *p = point_begin(b, name, TBF_FALSE, 0);
    if (p == NULL) {
        return TBF_ENOSPACE;
    }
    /* Kept as a dead point, so that a later member of that name still finds and replaces it. */
    size_t off = b->len;
    point_end(b, p);
    kill_point(b, (uint32_t)off);
    return TBF_OK;
}

tbf_status tbf_blob_open(tbf_batch *b, tbf_span name, tbf_type type, size_t bound, uint8_t **at) {
    uint8_t *p = point_begin(b, name, type, TBF_VARINT_MAX + bound);
    if (p == NULL) {
        return TBF_ENOSPACE;
    }
    b->blob_off = (size_t)(p - b->buf);
    b->blob_bound = bound;
    uint8_t head[TBF_VARINT_MAX];
    *at = p + (tbf_put_varint(head, bound) - head);
    return TBF_OK;
}

void tbf_blob_close(tbf_batch *b, size_t n) {
    uint8_t head[TBF_VARINT_MAX];
    size_t reserved = (size_t)(tbf_put_varint(head, b->blob_bound) - head);
    size_t used = (size_t)(tbf_put_varint(head, n) - head);
    uint8_t *p = b->buf + b->blob_off;
    if (used != reserved) {
        memmove(p + used, p + reserved, n);
    }
    memcpy(p, head, used);
    point_end(b, p + used + n);
}
