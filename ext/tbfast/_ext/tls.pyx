"""TLS of one connection without I/O: Python's `ssl` over memory, driven by the reactor.

Bytes of the socket go in by `feed`; what must go out is in `unsent` after every other call.
"""

cimport cython
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t

import _ssl
import ssl

cdef extern from *:
    """
    static int tbf_tls_accept_any(void *store, void *arg) {
        (void)store;
        (void)arg;
        return 1;
    }
    """
    int tbf_tls_accept_any(void *store, void *arg) noexcept nogil

# For SSL_CTX_set_cert_verify_callback: no chain is built, whoever proves to have the key passes.
# MQTT spec 1.5: CONNECT decides, by the certificate itself.
ACCEPT_ANY = <size_t>&tbf_tls_accept_any

cdef enum:
    READ = 0x100   # PyBUF_READ
    WRITE = 0x200  # PyBUF_WRITE

cdef object WantRead = ssl.SSLWantReadError
cdef object End = ssl.SSLZeroReturnError
cdef object Failed = ssl.SSLError


@cython.final
cdef class TlsStream:
    """``wrap``: SSLContext.wrap_bio of a server's context."""

    def __cinit__(self, wrap):
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = wrap(self.incoming, self.outgoing, server_side=True)

    cdef int feed(self, const uint8_t *p, size_t n) except -1:
        """Bytes from the socket."""
        self.incoming.write(PyMemoryView_FromMemory(<char *>p, <Py_ssize_t>n, READ))
        return 0

    cdef tls_end handshake(self) except *:
        """One step; TLS_FAILED: see `error`."""
        try:
            self.tls.do_handshake()
            return TLS_DONE
        except WantRead:
            return TLS_MORE
        except Failed as error:
            self.error = error.reason or "handshake failed"
            return TLS_FAILED

    cdef Py_ssize_t take(self, uint8_t *into, size_t room) except -1:
        """Plaintext of every complete record, at most `room` bytes; -2: the stream has ended."""
        cdef size_t got = 0
        cdef Py_ssize_t n
        try:
            while got < room and (self.incoming.pending or self.tls.pending()):
                n = self.tls.read(
                    room - got,
                    PyMemoryView_FromMemory(<char *>into + got, <Py_ssize_t>(room - got), WRITE))
                if n == 0:
                    return -2 if got == 0 else <Py_ssize_t>got
                got += <size_t>n
        except WantRead:
            pass
        except End:
            return -2 if got == 0 else <Py_ssize_t>got
        except Failed as error:
            self.error = error.reason or "broken record"
            return -2 if got == 0 else <Py_ssize_t>got
        return <Py_ssize_t>got

    cdef bytes seal(self, const uint8_t *p, size_t n):
        """What to send instead of these bytes."""
        cdef size_t at = 0
        while at < n:
            at += self.tls.write(
                PyMemoryView_FromMemory(<char *>p + at, <Py_ssize_t>(n - at), READ))
        return self.outgoing.read()

    cdef bytes unsent(self):
        """What the protocol itself wants to send: handshakes, tickets, alerts, new keys."""
        return self.outgoing.read() if self.outgoing.pending else b""

    cdef bytes farewell(self):
        """The alert that says that nothing follows."""
        try:
            self.tls.unwrap()
        except Failed:  # the peer has not said the same yet; nobody waits for it
            pass
        return self.outgoing.read()

    @property
    def resumed(self):
        """Whether an earlier session saved a handshake."""
        return bool(self.tls.session_reused)

    def chain(self):
        """DER of the certificates the peer presented, its own first; empty = none."""
        own = self.tls.getpeercert(True)
        if own is None:
            return ()
        # A resumed session brings the peer's own certificate alone.
        found = self.tls._sslobj.get_unverified_chain()
        rest = [one.public_bytes(_ssl.ENCODING_DER) for one in found or ()]
        return (own, *(der for der in rest if der != own))
