# What the load generator uses of the C library and of the kernel.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "tbf_mqtt.h" nogil:
    ctypedef enum tbf_status:
        TBF_OK, TBF_MORE
    ctypedef struct tbf_span:
        const uint8_t *p
        size_t n
    ctypedef struct tbf_frame:
        uint8_t type
        tbf_span body
        size_t total
    ctypedef struct tbf_connack:
        uint8_t reason
        tbf_span props
    ctypedef struct tbf_ack:
        uint16_t packet_id
        uint8_t reason
    ctypedef struct tbf_property:
        uint8_t id
        uint32_t number
    int TBF_MQTT_CONNACK, TBF_MQTT_PUBACK, TBF_MQTT_PUBREC, TBF_MQTT_PUBREL, TBF_MQTT_PUBCOMP
    int TBF_MQTT_DISCONNECT
    tbf_status tbf_mqtt_frame(const uint8_t *p, size_t n, size_t max_remaining, tbf_frame *out)
    tbf_status tbf_mqtt_connack(const tbf_frame *f, uint8_t version, tbf_connack *out)
    tbf_status tbf_mqtt_ack(const tbf_frame *f, uint8_t version, tbf_ack *out)
    tbf_status tbf_mqtt_next_property(tbf_span *at, tbf_property *out)
    size_t tbf_mqtt_put_ack(uint8_t *out, uint8_t type, uint16_t packet_id)

cdef extern from "tbf_load.h" nogil:
    enum: TBF_LOAD_TS_DIGITS, TBF_LOAD_VALUE_DIGITS
    ctypedef struct tbf_load_template:
        const uint8_t *frame
        size_t n
        size_t id_at
        size_t ts_at
        const uint32_t *values
        size_t value_count
    ctypedef enum tbf_load_wait:
        TBF_LOAD_FREE, TBF_LOAD_PUBACK, TBF_LOAD_PUBREC, TBF_LOAD_PUBCOMP
    ctypedef struct tbf_load_slot:
        int64_t intended_ns
        uint64_t seq
        uint8_t wait
        bint marker
    ctypedef struct tbf_load_window:
        tbf_load_slot *slots
        uint16_t capacity
        uint16_t limit
        uint16_t in_flight
    ctypedef enum tbf_load_answer:
        TBF_LOAD_STRAY, TBF_LOAD_RELEASE, TBF_LOAD_DONE, TBF_LOAD_REFUSED
    size_t tbf_load_stamp(uint8_t *out, const tbf_load_template *t, uint16_t packet_id,
                          uint64_t ts_ms, uint64_t seq)
    void tbf_load_window_init(tbf_load_window *w, tbf_load_slot *slots, uint16_t capacity)
    tbf_load_slot *tbf_load_begin(tbf_load_window *w, tbf_load_wait wait)
    uint16_t tbf_load_id(const tbf_load_window *w, const tbf_load_slot *s)
    tbf_load_answer tbf_load_answered(tbf_load_window *w, uint8_t type, uint16_t packet_id,
                                      uint8_t reason, tbf_load_slot **slot)

cdef extern from "tbf_out.h" nogil:
    enum: TBF_OUT_NUMBER
    size_t tbf_out_int64(uint8_t *out, int64_t v)

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD
    uint32_t EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)

cdef extern from "<sys/socket.h>" nogil:
    struct sockaddr:
        unsigned short sa_family
    int MSG_DONTWAIT, MSG_NOSIGNAL, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC, SOL_SOCKET, SO_ERROR
    int socket(int domain, int type, int protocol)
    int bind(int fd, const sockaddr *address, unsigned int n)
    int connect(int fd, const sockaddr *address, unsigned int n)
    int getsockopt(int fd, int level, int name, void *value, unsigned int *n)
    int setsockopt(int fd, int level, int name, const void *value, unsigned int n)
    ssize_t recv(int fd, void *buf, size_t n, int flags)
    ssize_t send(int fd, const void *buf, size_t n, int flags)

cdef extern from "<netinet/in.h>" nogil:
    int IPPROTO_TCP, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT

cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_NODELAY

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
    int POLLIN

cdef extern from "<sys/prctl.h>" nogil:
    int PR_SET_TIMERSLACK
    int prctl(int option, unsigned long value)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *out)

cdef extern from *:
    """
    #include <poll.h>
    #include <time.h>
    /* Waits on the epoll descriptor itself: epoll_wait has no finer unit than 1 ms. */
    static inline void wait_ns(int epfd, int64_t ns) {
        struct pollfd p = {.fd = epfd, .events = POLLIN};
        struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
        (void)ppoll(&p, 1, &t, NULL);
    }
    """
    void wait_ns(int epfd, int64_t ns) nogil

cdef extern from "<unistd.h>" nogil:
    int close(int fd)
    ssize_t write(int fd, const void *buf, size_t n)
