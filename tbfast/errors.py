"""Errors say who is to blame; each carries the wire code to send, if there is one.

Third-party exceptions are translated to these at the codec or store door.
"""


class TbfastError(Exception):
    """Base of every error tbfast raises on purpose.

    ``code`` is the protocol's own code to answer with (MQTT reason, HTTP status, CoAP code),
    or None where the protocol has none.
    """

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class PeerError(TbfastError):
    """The other side broke the protocol or sent content we refuse; it alone is affected."""


class HttpError(PeerError):
    """An HTTP message that is refused; ``code`` is the status, ``reason`` the metric's word."""

    def __init__(self, status: int, message: str, reason: str = "malformed") -> None:
        super().__init__(message, code=status)
        self.status = status
        self.reason = reason


class LocalError(TbfastError):
    """We, or our configuration, are wrong; the message says what to change."""


class ConfigError(LocalError):
    """A setting is unknown or has a value we cannot use; the message names it and its source."""


class ResourceError(TbfastError):
    """A bound was reached (memory, descriptors, rate); trying later may work."""


class RateLimited(ResourceError):
    """A message is over a rate limit: which one (see model.rates.NAMES), and when it would fit.

    retry_s: whole seconds; None = never, it is larger than the limit's bucket.
    """

    def __init__(self, message: str, *, limit: int, retry_s: int | None) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_s = retry_s


class StoreError(TbfastError):
    """The disk or the store failed or is damaged; nothing may be acknowledged."""


class Conflict(LocalError):
    """A unique name is taken, or the entity changed since the caller read it."""


class NotFound(LocalError):
    """The thing named does not exist."""


class StoreBusy(LocalError):
    """Another process has the store open."""


class StoreFull(StoreError):
    """No space left, or a byte limit reached: writing resumes by itself when there is space."""


class StoreStall(StoreError):
    """The store asks writers to slow down; the same write succeeds a little later."""
