"""What a session asks of the world around it."""

import msgspec

from tbfast.model.auth import Presented, StoredCredentials


class Authenticate(msgspec.Struct, frozen=True):
    """Find out who this is and call `authenticated` or `auth_unavailable`."""

    client: Presented


class SessionOpened(msgspec.Struct, frozen=True):
    """CONNECT accepted: the device has a session here; an older one of it must go."""

    credentials: StoredCredentials


class Refused(msgspec.Struct, frozen=True):
    """Something was refused: one counter and one (rate-limited) log line.

    reason: fixed word; detail: our own words, never peer data.
    """

    reason: str
    detail: str


class Finish(msgspec.Struct, frozen=True):
    """Send what `output` holds, then close the connection."""


class Abort(msgspec.Struct, frozen=True):
    """Close at once, without another byte."""


Effect = Authenticate | SessionOpened | Refused | Finish | Abort
