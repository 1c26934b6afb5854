"""The TLS side of a listener: certificate files, tickets, and a reload that cannot break it.

Python's `ssl` verifies client certificates against known authorities; ThingsBoard lets any pass
and has CONNECT decide (MQTT spec 1.5).  So the verifying is switched off on the OpenSSL context
behind `SSLContext`, whose address is the first member of that object.
"""

import _ssl
import ctypes
import hashlib
import os
import secrets
import ssl
import time
from collections.abc import Sequence
from pathlib import Path

from tbfast import limits
from tbfast._ext.tls import ACCEPT_ANY
from tbfast.errors import LocalError

_SET_SESSION_CACHE_MODE = 44
_SET_TICKET_KEYS = 59
_TICKET_KEYS_BYTES = 80
_SET_MAX_CERT_LIST = 51
TICKET_KEYS_S = 12 * 3600  # life of a set of ticket keys


class TlsError(LocalError):
    """Certificate or key cannot be used; the message names the file."""


class ServerTls:
    """Contexts for new connections out of PEM files that may change.

    `tickets` is the secret that ticket keys are derived from: processes with the same one resume
    each other's sessions.  setting: where errors tell to look; clients: whether these are asked for
    a certificate; alpn: protocols offered.
    """

    def __init__(
        self,
        certificate: str,
        key: str,
        password: str,
        tickets: bytes,
        *,
        setting: str = "mqtt.ssl",
        clients: bool = True,
        alpn: Sequence[str] = (),
    ) -> None:
        self._setting = setting
        self._clients = clients
        self._alpn = alpn
        self._certificate = Path(certificate)
        self._key = Path(key) if key and Path(key).exists() else self._certificate
        self._password = password
        self._tickets = tickets
        self._period = -1
        self._seen = self._signature()
        self._context = self._load()

    @property
    def context(self) -> ssl.SSLContext:
        """The newest good certificate."""
        return self._context

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *, server_side: bool
    ) -> ssl.SSLObject:
        """A connection under the newest good certificate."""
        return self._context.wrap_bio(incoming, outgoing, server_side=server_side)

    def refresh(self, *, force: bool = False) -> bool:
        """Loads files that have changed since the last look; whether it did.

        TlsError: they are unusable, what was loaded before stays.
        """
        seen = self._signature()
        changed = seen != self._seen or force
        self._seen = seen
        if changed:
            self._context = self._load()
        self._renew_tickets()
        return changed

    def _signature(self) -> tuple[object, ...]:
        """What differs once a file was replaced or rewritten."""
        found: list[object] = []
        for path in (self._certificate, self._key):
            try:
                stat = path.stat()
            except OSError as error:
                found.append(error.errno)
            else:
                found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
        context.verify_mode = ssl.CERT_OPTIONAL if self._clients else ssl.CERT_NONE
        if self._alpn:
            context.set_alpn_protocols(self._alpn)
        context.num_tickets = 1
        encrypted = False

        def password() -> str:  # without it OpenSSL would ask on the terminal
            nonlocal encrypted
            encrypted = True
            return self._password

        try:
            context.load_cert_chain(self._certificate, self._key, password)
        except (OSError, ValueError) as error:
            raise TlsError(self._explain(error, encrypted=encrypted)) from error
        _prepare(context)
        _set_ticket_keys(context, self._ticket_keys(_period()))
        return context

    def _explain(self, error: OSError | ValueError, *, encrypted: bool) -> str:
        certificate, key = self._certificate, self._key
        for path in (certificate, key):
            if not os.access(path, os.R_OK):
                pem = f"{self._setting}.credentials.pem"
                return f"cannot read {path}: set {pem}.cert_file and key_file"
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            return f"the key in {key} is not that of the certificate in {certificate}"
        if encrypted:
            return f"the key in {key} is encrypted, and its password is wrong or missing"
        return f"no usable certificate and key in {certificate} and {key}: {error}"

    def _ticket_keys(self, period: int) -> bytes:
        seed = self._tickets + period.to_bytes(8, "big")
        return hashlib.shake_256(seed).digest(_TICKET_KEYS_BYTES)

    def _renew_tickets(self) -> None:
        if self._period != (now := _period()):
            self._period = now
            _set_ticket_keys(self._context, self._ticket_keys(now))


def ticket_secret() -> bytes:
    """One per start of a node; all its workers get the same."""
    return secrets.token_bytes(32)


def _period() -> int:
    return int(time.time()) // TICKET_KEYS_S


# --- what Python's ssl does not offer ------------------------------------------------------------


def _openssl() -> ctypes.CDLL:
    library = ctypes.CDLL(getattr(_ssl, "__file__", None))
    try:
        library.SSL_CTX_set_cert_verify_callback.argtypes = [ctypes.c_void_p] * 3
        library.SSL_CTX_set_cert_verify_callback.restype = None
        library.SSL_CTX_ctrl.argtypes = [
            ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p,
        ]  # fmt: skip
        library.SSL_CTX_ctrl.restype = ctypes.c_long
    except AttributeError as error:
        raise TlsError("this Python hides the OpenSSL of its ssl module: no TLS") from error
    return library


def _address(context: ssl.SSLContext) -> int:
    """The SSL_CTX behind a context."""
    found = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    assert found is not None
    return found


def _prepare(context: ssl.SSLContext) -> None:
    openssl, address = _openssl(), _address(context)
    openssl.SSL_CTX_set_cert_verify_callback(address, ACCEPT_ANY, None)
    # Sessions are resumed by tickets; a cache would keep what strangers presented.
    openssl.SSL_CTX_ctrl(address, _SET_SESSION_CACHE_MODE, 0, None)
    openssl.SSL_CTX_ctrl(address, _SET_MAX_CERT_LIST, limits.TLS_CHAIN_BYTES, None)


def _set_ticket_keys(context: ssl.SSLContext, keys: bytes) -> None:
    done = _openssl().SSL_CTX_ctrl(_address(context), _SET_TICKET_KEYS, _TICKET_KEYS_BYTES, keys)
    if done != 1:
        raise TlsError("OpenSSL refuses the ticket keys")
