"""The gate in front of the reactor's epoll: closed for a moment, it lets messages gather.

At 40,000 messages a second a loop that serves each as it comes spends two thirds of its time on
turns; answers leave with the commits anyway, a millisecond apart.  So after a short turn on a loop
that idles, ready sockets do not wake it for `REST_NS`; a timer does.
"""

from libc.errno cimport EAGAIN, errno
from libc.stdint cimport uint64_t
from libc.string cimport memset

from tbfast._ext.posix cimport (
    CLOCK_MONOTONIC,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_MOD,
    EPOLLIN,
    TFD_CLOEXEC,
    TFD_NONBLOCK,
    close,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    itimerspec,
    now_ns,
    read,
    timerfd_create,
    timerfd_settime,
)

cdef enum:
    LIGHT_TURN_NS = 250000  # a turn shorter than this is mostly overhead
    REST_NS = 1000000       # a commit interval

cdef class Gate:
    """Watches the epoll `behind`; its own descriptor is the one the loop watches."""

    def __cinit__(self, int behind):
        self.behind = behind
        self.alarm = -1
        self.fd = epoll_create1(EPOLL_CLOEXEC)
        if self.fd < 0:
            raise OSError(errno, "epoll_create1 failed")
        self.alarm = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
        if self.alarm < 0:
            raise OSError(errno, "timerfd_create failed")
        self._watch(EPOLL_CTL_ADD, behind, EPOLLIN)
        self._watch(EPOLL_CTL_ADD, self.alarm, EPOLLIN)

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)
        if self.alarm >= 0:
            close(self.alarm)

    cdef int _watch(self, int op, int fd, uint32_t events) except -1:
        cdef epoll_event ev
        ev.events = events
        ev.data.u64 = 0
        if epoll_ctl(self.fd, op, fd, &ev) < 0:
            raise OSError(errno, "epoll_ctl failed")
        return 0

    cdef int rest(self, int64_t began) except -1:
        """Closes the gate for REST_NS if the turn that began then was short and the loop idles.

        A busy loop gathers by itself; resting would only slow it down.
        """
        cdef itimerspec until
        cdef int64_t idle = began - self.ended_ns
        self.ended_ns = now_ns(CLOCK_MONOTONIC)
        if self.ended_ns - began > LIGHT_TURN_NS or 2 * idle < self.ended_ns - began:
            return 0
        memset(&until, 0, sizeof(until))
        until.it_value.tv_nsec = REST_NS
        if timerfd_settime(self.alarm, 0, &until, NULL) < 0:
            raise OSError(errno, "timerfd_settime failed")
        self._watch(EPOLL_CTL_MOD, self.behind, 0)
        self.closed = True
        return 0

    cdef int open(self) except -1:
        """Ends a rest: the timer has woken the loop."""
        cdef uint64_t expirations
        if read(self.alarm, &expirations, sizeof(expirations)) < 0 and errno != EAGAIN:
            raise OSError(errno, "cannot read the alarm")
        self._watch(EPOLL_CTL_MOD, self.behind, EPOLLIN)
        self.closed = False
        return 0
