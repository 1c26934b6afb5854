"""What clients send, in both forms: named lists and the general list with types (REST spec 14.2-3).

Members that are unknown are ignored, as ThingsBoard does.
"""

from typing import Any, Final, NamedTuple

import msgspec

from tbfast.errors import PeerError


class Auth(msgspec.Struct, frozen=True, rename="camel"):
    """The first message, unless the token was in the request."""

    token: str | None = None
    api_key: str | None = None


class _Subject(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    cmd_id: int = 0
    entity_type: str | None = None
    entity_id: str | None = None
    scope: str | None = None
    keys: str | None = None
    unsubscribe: bool = False

    @property
    def names(self) -> list[str] | None:
        """The keys asked for; None = all."""
        return [name for name in (self.keys or "").split(",") if name] or None


class WatchSeries(_Subject, frozen=True, rename="camel", kw_only=True):
    """Latest values and their changes; with a time window its history first."""

    start_ts: int = 0
    time_window: int = 0
    interval: int = 0
    limit: int = 0
    agg: str | None = None


class WatchAttributes(_Subject, frozen=True, rename="camel", kw_only=True):
    """Attributes of one scope or of all, and their changes."""


class ReadHistory(_Subject, frozen=True, rename="camel", kw_only=True):
    """Points of a time, once."""

    start_ts: int = 0
    end_ts: int = 0
    interval: int = 0
    limit: int = 0
    agg: str | None = None


class WatchEntities(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Entities that match a query, with values and their changes (REST spec 14.5)."""

    cmd_id: int = 0
    query: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    latest_cmd: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    ts_cmd: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    history_cmd: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class CountEntities(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How many entities match a query."""

    cmd_id: int = 0
    query: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class Unsubscribe(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The end of one subscription."""

    cmd_id: int = 0


class Unsupported(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A command of a kind that is not served here."""

    cmd_id: int = 0
    type: str = ""


Command = (
    WatchSeries
    | WatchAttributes
    | ReadHistory
    | WatchEntities
    | CountEntities
    | Unsubscribe
    | Unsupported
)

_TYPES: Final[dict[str, type[Command]]] = {
    "TIMESERIES": WatchSeries,
    "ATTRIBUTES": WatchAttributes,
    "TIMESERIES_HISTORY": ReadHistory,
    "ENTITY_DATA": WatchEntities,
    "ENTITY_COUNT": CountEntities,
    "TIMESERIES_UNSUBSCRIBE": Unsubscribe,
    "ATTRIBUTES_UNSUBSCRIBE": Unsubscribe,
    "ENTITY_DATA_UNSUBSCRIBE": Unsubscribe,
    "ENTITY_COUNT_UNSUBSCRIBE": Unsubscribe,
}


class _Typed(msgspec.Struct, frozen=True):
    type: str = ""


class _Message(msgspec.Struct, frozen=True, rename="camel"):
    auth_cmd: Auth | None = None
    cmds: list[msgspec.Raw] | None = None
    ts_sub_cmds: list[WatchSeries] | None = None
    attr_sub_cmds: list[WatchAttributes] | None = None
    history_cmds: list[ReadHistory] | None = None
    entity_data_cmds: list[WatchEntities] | None = None
    entity_data_unsubscribe_cmds: list[Unsubscribe] | None = None
    entity_count_cmds: list[CountEntities] | None = None
    entity_count_unsubscribe_cmds: list[Unsubscribe] | None = None


class Incoming(NamedTuple):
    """One message: who the client says it is, if it does, and its commands in order."""

    auth: Auth | None
    commands: list[Command]


_messages = msgspec.json.Decoder(_Message)
_kinds = msgspec.json.Decoder(_Typed)


def parse(text: str) -> Incoming:
    """One message; PeerError for what is none."""
    try:
        message = _messages.decode(text)
        commands: list[Command] = [_command(raw) for raw in message.cmds or ()]
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise PeerError(f"no valid message: {error}", code=2) from error
    commands += message.ts_sub_cmds or ()
    commands += message.attr_sub_cmds or ()
    commands += message.history_cmds or ()
    commands += message.entity_data_cmds or ()
    commands += message.entity_data_unsubscribe_cmds or ()
    commands += message.entity_count_cmds or ()
    commands += message.entity_count_unsubscribe_cmds or ()
    return Incoming(message.auth_cmd, commands)


def _command(raw: msgspec.Raw) -> Command:
    kind = _TYPES.get(_kinds.decode(raw).type, Unsupported)
    return msgspec.json.decode(raw, type=kind)


def part(raw: msgspec.Raw, type_: Any) -> Any:
    """A part of a command, None where it is missing; PeerError if it cannot be understood."""
    if bytes(raw) in (b"", b"null"):
        return None
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(f"the command cannot be understood: {error}", code=2) from error
