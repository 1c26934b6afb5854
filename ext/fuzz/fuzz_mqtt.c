/* libFuzzer target: a stream of MQTT packets.  The first input byte chooses the version.
 *
 *   clang -std=c11 -g -O1 -fsanitize=fuzzer,address,undefined -Iext/c -o fuzz_mqtt \
 *       ext/fuzz/fuzz_mqtt.c ext/c/tbf_mqtt*.c
 *   ./fuzz_mqtt -dict=ext/fuzz/mqtt.dict build/corpus ext/fuzz/corpus/mqtt
 *
 * Beyond memory errors it looks for a packet that is accepted, written back, and then refused or
 * written differently the second time. */
#include "tbf_mqtt.h"

#include <stdlib.h>

enum { MAX_REMAINING = 1 << 16 };

static void insist(bool truth) {
    if (!truth) {
        abort();
    }
}

/* Parses one body and writes it at out; *n as the writers set it. */
static tbf_status rewrite(const tbf_frame *f, uint8_t version, uint8_t *out, size_t cap,
                          size_t *n) {
    tbf_status status;
    switch (f->type) {
    case TBF_MQTT_CONNECT: {
        tbf_connect v;
        status = tbf_mqtt_connect(f, &v);
        return status != TBF_OK ? status : tbf_mqtt_put_connect(out, cap, n, &v);
    }
    case TBF_MQTT_CONNACK: {
        tbf_connack v;
        status = tbf_mqtt_connack(f, version, &v);
        return status != TBF_OK ? status : tbf_mqtt_put_connack(out, cap, n, version, &v);
    }
    case TBF_MQTT_PUBLISH: {
        tbf_publish v;
        status = tbf_mqtt_publish(f, version, &v);
        return status != TBF_OK ? status : tbf_mqtt_put_publish(out, cap, n, version, &v);
    }
    case TBF_MQTT_SUBSCRIBE:
    case TBF_MQTT_UNSUBSCRIBE: {
        tbf_subscribe v;
        status = tbf_mqtt_subscribe(f, version, &v);
        return status != TBF_OK ? status
                                : tbf_mqtt_put_subscribe(out, cap, n, version, f->type, &v);
    }
    case TBF_MQTT_SUBACK:
    case TBF_MQTT_UNSUBACK: {
        tbf_suback v;
        status = tbf_mqtt_suback(f, version, &v);
        return status != TBF_OK ? status : tbf_mqtt_put_suback(out, cap, n, version, f->type, &v);
    }
    case TBF_MQTT_PINGREQ:
    case TBF_MQTT_PINGRESP:
        return tbf_mqtt_put_ping(out, cap, n, f->type);
    case TBF_MQTT_DISCONNECT:
    case TBF_MQTT_AUTH: {
        tbf_reason v;
        status = tbf_mqtt_reason(f, version, &v);
        return status != TBF_OK ? status : tbf_mqtt_put_reason(out, cap, n, version, f->type, &v);
    }
    default: {
        tbf_ack v;
        status = tbf_mqtt_ack(f, version, &v);
        return status != TBF_OK ? status
                                : tbf_mqtt_put_acknowledgement(out, cap, n, version, f->type, &v);
    }
    }
}

/* One accepted packet: written, read and written again it must stay the same. */
static void round_trip(const tbf_frame *f, uint8_t version) {
    size_t n = 0, again = 0;
    tbf_status status = rewrite(f, version, NULL, 0, &n);
    if (status == TBF_EMALFORMED || status == TBF_EPROTOCOL) {
        return;
    }
    insist(status == TBF_ENOSPACE && n <= f->total + 4);
    uint8_t *first = malloc(n), *second = malloc(n);
    insist(first != NULL && second != NULL);
    insist(rewrite(f, version, first, n, &n) == TBF_OK);
    tbf_frame copy;
    insist(tbf_mqtt_frame(first, n, TBF_MQTT_REMAINING_MAX, &copy) == TBF_OK && copy.total == n);
    insist(rewrite(&copy, version, second, n, &again) == TBF_OK && again == n);
    insist(memcmp(first, second, n) == 0);
    free(first);
    free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    uint8_t version = (uint8_t)(3 + data[0] % 3);
    for (size_t at = 1; at < size;) {
        tbf_frame f;
        if (tbf_mqtt_frame(data + at, size - at, MAX_REMAINING, &f) != TBF_OK) {
            break;
        }
        insist(f.total <= size - at && f.body.n <= MAX_REMAINING);
        /* A copy of exactly this packet, so that reading past it is seen. */
        uint8_t *packet = malloc(f.total);
        insist(packet != NULL);
        memcpy(packet, data + at, f.total);
        at += f.total;
        insist(tbf_mqtt_frame(packet, f.total, MAX_REMAINING, &f) == TBF_OK);
        round_trip(&f, version);
        free(packet);
    }
    return 0;
}
