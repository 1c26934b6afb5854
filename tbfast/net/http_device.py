"""The HTTP device API (HTTP spec 3): requests of devices to rows and operations.

A 200 to telemetry or attributes exists only as the effect of the commit: the exchange travels with
the group that holds its rows and is answered when that is durable, or refused when it is not.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from tbfast import limits
from tbfast._ext import metrics as words
from tbfast._ext.http import take_post
from tbfast._ext.ingest import Group, Ingest
from tbfast._ext.metrics import Slot
from tbfast.codec.http import Head, HttpError, Response
from tbfast.errors import PeerError, RateLimited, StoreError, StoreFull
from tbfast.model.auth import StoredCredentials
from tbfast.model.operations import (
    AnswerRpc,
    Attributes,
    AwaitAttributes,
    AwaitRpc,
    Chunk,
    Done,
    Operation,
    PackageFound,
    Provisioned,
    Refusal,
    Reply,
    Result,
    RpcRequest,
    Told,
)
from tbfast.net.http import OK
from tbfast.net.http_exchange import ANY_ORIGIN, RETRY, Exchange, Origins, error_response
from tbfast.net.http_routes import ROOT, PayloadLimits, Target, integer, parameters, target, utf8
from tbfast.net.worker import Commits, Operations
from tbfast.ops import attributes as attributes_ops
from tbfast.ops import claim as claim_ops
from tbfast.ops import provision as provision_ops
from tbfast.ops import rpc as rpc_ops

_NOBODY: Final = 0  # no device has this number; of those who ask to be registered
_INT32: Final = range(-(1 << 31), 1 << 31)
_UNAUTHORIZED: Final = Response(401)
_TIMED_OUT: Final = Response(408)
_DELETED: Final = Response(403, b"Device was deleted!", "text/plain;charset=UTF-8")
_REFUSALS: Final = {
    "unavailable": 503,
    "timeout": 408,
    "limit": 429,
    "invalid": 500,
}

Accepted = Callable[[StoredCredentials], None]
_Held = tuple[Exchange, StoredCredentials, bytes, bool]  # its body, and whether attributes


class Directory(Protocol):
    """Who devices are: tbfast.worker.directory.Directory."""

    def token(self, token: str) -> StoredCredentials | None: ...
    def find_token(
        self,
        token: str,
        done: Callable[[StoredCredentials | None], None],
        unavailable: Callable[[], None],
    ) -> None: ...


class Settings:
    """What the configuration says."""

    def __init__(
        self,
        *,
        max_payload_size: str,
        request_timeout_ms: int = limits.HTTP_POLL_TIMEOUT_MS,
        max_request_timeout_ms: int = limits.HTTP_POLL_TIMEOUT_MAX_MS,
        answer_timeout_ms: int = limits.REQUEST_TIMEOUT_MS,
        origins: Origins = ANY_ORIGIN,
    ) -> None:
        self.payloads = PayloadLimits(max_payload_size)
        self.request_timeout_ms = request_timeout_ms
        self.max_request_timeout_ms = max_request_timeout_ms
        self.answer_timeout_s = answer_timeout_ms / 1000
        self.origins = origins


class _Waiting:
    """A request that waits for the controller."""

    __slots__ = ("device", "exchange", "polls", "request", "timer")

    def __init__(self, device: int, exchange: Exchange, *, polls: bool) -> None:
        self.device = device
        self.exchange = exchange
        self.polls = polls
        self.request = 0
        self.timer: asyncio.TimerHandle | None = None


class DeviceApi:
    """Everything below /api/v1/ on one worker; all calls on the loop's thread."""

    streamed = False
    prefixes: tuple[bytes, ...] = (ROOT,)

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ingest: Ingest,
        slot: Slot,
        directory: Directory,
        operations: Operations,
        settings: Settings,
    ) -> None:
        self._loop = loop
        self._ingest = ingest
        self._slot = slot
        self._directory = directory
        self._operations = operations
        self._settings = settings
        self.origins = settings.origins
        self._turn_scheduled = False
        self._pressed = False
        self._held: deque[_Held] = deque()  # bound: _held_bytes
        self._held_bytes = 0
        self._waiting: dict[int, set[_Waiting]] = {}  # by device number
        self.commits: Commits | None = None
        self._max_plain = settings.payloads.least

    # --- requests ----------------------------------------------------------------------------

    def admit(self, head: Head) -> int | None:
        """As Handler.admit."""
        path = head.path
        if not path.startswith(ROOT):
            return None
        return self._settings.payloads.of(path)

    def begin(self, exchange: Exchange) -> None:
        """As Handler.begin."""
        assert exchange.request is not None
        head = exchange.request.head
        exchange.headers = self.origins.headers(head)
        try:
            found = target(head.path)
            if found is None:
                raise HttpError(404, "Not found", "topic")
            method = "GET" if head.method == "HEAD" else head.method
            if method == "OPTIONS":
                allowed = _preflight(head) if exchange.headers else ()
                exchange.answer(Response(200, headers=(("Allow", found.allow), *allowed)))
            elif method not in found.methods:
                response = error_response(405, "Method not allowed", [("Allow", found.allow)])
                exchange.answer(response)
            elif found.name == "provision":
                self._provision(exchange)
            else:
                serve = getattr(self, f"_{method.lower()}_{_METHODS[found.name]}")
                self.accept(found.token, exchange, partial(self._serve, serve, exchange, found))
        except HttpError as error:
            self.refuse(exchange, error)

    def take(self, exchange: Exchange, data: bytes) -> bool:
        """Whether the bytes are one plain telemetry POST, which is then answered with its commit.

        Anything unusual is left for `begin`: heads, bodies, strangers, back-pressure.
        """
        assert self.commits is not None
        if self._pressed or self.commits.stalled or len(data) > self._max_plain:
            return False
        try:
            if not take_post(self._ingest, self._directory.token, exchange, data):
                return False
        except RateLimited as error:
            self._loop.call_soon(self.limited, exchange, error)  # once the answer is owed
            return True
        if not self._turn_scheduled or self._ingest.rows_bytes >= limits.BATCH_GROUP_BYTES:
            self._rows_came()
        return True

    def accept(self, token: str, exchange: Exchange, accepted: Accepted) -> None:
        """Calls `accepted` if the token is a device's; answers 401 or 503 itself."""

        def done(found: StoredCredentials | None) -> None:
            if found is not None:
                accepted(found)
            else:
                self._count("auth")
                exchange.answer(_UNAUTHORIZED)

        if not 0 < len(token) <= limits.REGISTRY_NAME_CHARS:
            done(None)
            return
        self._directory.find_token(token, done, lambda: self._unavailable(exchange))

    def _serve(
        self,
        serve: Callable[[Exchange, StoredCredentials, Target], None],
        exchange: Exchange,
        found: Target,
        who: StoredCredentials,
    ) -> None:
        if not exchange.open:
            return
        try:
            serve(exchange, who, found)
        except HttpError as error:
            self.refuse(exchange, error)
        except RateLimited as error:
            self.limited(exchange, error)
        except PeerError as error:
            self._refuse_payload(exchange, error)

    def refuse(self, exchange: Exchange, error: HttpError) -> None:
        """Answers with an error of the request itself."""
        self._count(error.reason)
        retry = RETRY if error.status == 429 else ()
        exchange.answer(error_response(error.status, str(error), retry))

    def limited(self, exchange: Exchange, error: RateLimited) -> None:
        """429 with the limit in the message; no time to retry for what never fits."""
        self._count("rate")
        self._slot.add(words.RATE_LIMITED + error.limit)
        retry = () if error.retry_s is None else (("Retry-After", str(error.retry_s)),)
        exchange.answer(error_response(429, str(error), retry))

    def _refuse_payload(self, exchange: Exchange, error: PeerError) -> None:
        self._count("payload")
        exchange.answer(Response(400, str(error).encode(), "text/plain;charset=UTF-8"))

    def _unavailable(self, exchange: Exchange) -> None:
        exchange.answer(error_response(503, "The node cannot answer now; try again", RETRY))

    def _count(self, reason: str) -> None:
        self._slot.add(words.REFUSED_HTTP + getattr(words, f"REASON_{reason.upper()}"))

    # --- rows --------------------------------------------------------------------------------

    def _post_telemetry(self, exchange: Exchange, who: StoredCredentials, found: Target) -> None:
        self._store_body(exchange, who, _body(exchange), attributes=False)

    def _post_attributes(self, exchange: Exchange, who: StoredCredentials, found: Target) -> None:
        self._store_body(exchange, who, _body(exchange), attributes=True)

    def _store_body(
        self, exchange: Exchange, who: StoredCredentials, body: bytes, attributes: bool
    ) -> None:
        if not body:
            self.refuse(exchange, HttpError(400, "Required request body is missing", "payload"))
        else:
            self._store(exchange, who, body, attributes)

    def _store(
        self, exchange: Exchange, who: StoredCredentials, body: bytes, attributes: bool
    ) -> None:
        """Appends the rows; the answer comes with the commit of their group."""
        assert self.commits is not None
        if self.commits.stalled:
            self._count("store")
            exchange.answer(error_response(503, "The node waits for its disk", RETRY))
            return
        if self._pressed:
            self._hold(exchange, who, body, attributes)
            return
        ingest = self._ingest
        ingest.at(time.time_ns() // 1_000_000, time.monotonic_ns())
        try:
            append = ingest.append_attributes if attributes else ingest.append_json
            records, _ = append(who.device, body, who.scope)
        except PeerError as error:
            self._refuse_payload(exchange, error)
            return
        except RateLimited as error:
            self.limited(exchange, error)
            return
        if not records:
            ingest.quiet(who.device)
        ingest.wait(exchange)
        self._rows_came()

    def _rows_came(self) -> None:
        """The group is committed at the end of the turn, or sooner if it is large."""
        if not self._turn_scheduled:
            self._turn_scheduled = True
            self._loop.call_soon(self._end_turn)
        if self._ingest.rows_bytes >= limits.BATCH_GROUP_BYTES and not self._pressed:
            self._loop.call_soon(self._close_group)

    def _close_group(self) -> None:
        """Not at once: a commit may be what let this request in."""
        if self._ingest.rows_bytes >= limits.BATCH_GROUP_BYTES:
            assert self.commits is not None
            self.commits.commit()

    def _end_turn(self) -> None:
        self._turn_scheduled = False
        if not self._ingest.group.empty:
            assert self.commits is not None
            self.commits.turn_ended()

    def _hold(
        self, exchange: Exchange, who: StoredCredentials, body: bytes, attributes: bool
    ) -> None:
        """Too much is not durable yet: requests wait, and are refused past a bound."""
        if self._held_bytes + len(body) > limits.HTTP_BODIES_BYTES:
            self._count("limit")
            self._unavailable(exchange)
            return
        self._held_bytes += len(body)
        self._held.append((exchange, who, body, attributes))

    # --- the commit path ---------------------------------------------------------------------

    def complete(self, group: Group) -> None:
        """The group is durable: its requests are answered."""
        now_ns = time.monotonic_ns()
        for exchange in group.waiters:
            self._slot.observe_seconds(words.ACK, (now_ns - exchange.read_ns) / 1e9)
            exchange.answer(OK)

    def fail(self, group: Group, error: StoreError) -> None:
        """The group was not stored."""
        if not group.waiters:
            return
        if isinstance(error, StoreFull):
            response = error_response(507, "The node's disk is full", RETRY)
        else:
            response = error_response(503, "The node's store failed", RETRY)
        for exchange in group.waiters:
            exchange.answer(response)

    def press(self, on: bool) -> None:
        """Back-pressure on or off."""
        self._pressed = on
        if not on and self._held:
            self._loop.call_soon(self._release)

    def _release(self) -> None:
        while self._held and not self._pressed:
            exchange, who, body, attributes = self._held.popleft()
            self._held_bytes -= len(body)
            if exchange.open:
                self._store(exchange, who, body, attributes)
            if self._ingest.rows_bytes >= limits.BATCH_GROUP_BYTES:
                self._loop.call_soon(self._release)
                return

    # --- operations --------------------------------------------------------------------------

    def _get_attributes(self, exchange: Exchange, who: StoredCredentials, found: Target) -> None:
        query = _query(exchange)
        operation = attributes_ops.of_lists(query.get("clientKeys"), query.get("sharedKeys"))
        self._ask(exchange, who, operation, self._settings.answer_timeout_s)

    def _post_answer(self, exchange: Exchange, who: StoredCredentials, found: Target) -> None:
        number = integer(found.argument, "The request id")
        if number not in _INT32:
            raise HttpError(400, "The request id is not an integer of 32 bits")
        body = _body(exchange)
        if not body:
            raise HttpError(400, "Required request body is missing", "payload")
        self._ask(exchange, who, AnswerRpc(number, body), self._settings.answer_timeout_s)

    def _post_claim(self, exchange: Exchange, who: StoredCredentials, found: Target) -> None:
        operation = claim_ops.request(_body(exchange))
        self._ask(exchange, who, operation, self._settings.answer_timeout_s)

    def _provision(self, exchange: Exchange) -> None:
        """Answered with 200 whatever came of it; 500 where the profile wants certificates."""
        try:
            operation = provision_ops.request(_body(exchange))
        except PeerError as error:
            self._refuse_payload(exchange, error)
            return
        self._ask(exchange, None, operation, self._settings.answer_timeout_s)

    def _post_call(self, exchange: Exchange, who: StoredCredentials, found: Target) -> None:
        body = _body(exchange)
        if not body:
            raise HttpError(400, "Required request body is missing", "payload")
        call = rpc_ops.call(body, params_required=True)
        self._check_bound(who.device, limits.HTTP_CALLS_PER_DEVICE, polls=False)
        self._ask(exchange, who, call, self._settings.request_timeout_ms / 1000)

    def _get_updates(self, exchange: Exchange, who: StoredCredentials, found: Target) -> None:
        self._poll(exchange, who, AwaitAttributes())

    def _get_call(self, exchange: Exchange, who: StoredCredentials, found: Target) -> None:
        self._poll(exchange, who, AwaitRpc())

    def _poll(self, exchange: Exchange, who: StoredCredentials, operation: Operation) -> None:
        timeout_ms = integer(_query(exchange).get("timeout", "0"), "timeout")
        if timeout_ms < 0 or exchange.peer_ended:
            exchange.answer(_TIMED_OUT)
            return
        timeout_ms = timeout_ms or self._settings.request_timeout_ms
        timeout_s = min(timeout_ms, self._settings.max_request_timeout_ms) / 1000
        self._check_bound(who.device, limits.HTTP_POLLS_PER_DEVICE, polls=True)
        self._ask(exchange, who, operation, timeout_s, polls=True)

    def _check_bound(self, device: int, bound: int, *, polls: bool) -> None:
        waiting = self._waiting.get(device, ())
        if sum(w.polls is polls for w in waiting) >= bound:
            raise HttpError(429, f"More than {bound} requests of this device wait", "limit")

    def _ask(
        self,
        exchange: Exchange,
        who: StoredCredentials | None,
        operation: Operation,
        timeout_s: float,
        *,
        polls: bool = False,
    ) -> None:
        """Answers with the result, or after the time with 408; given up when the peer goes.

        It counts as a message of the device; RateLimited when it is over a limit.
        """
        if who is not None:
            self.spend(who)
        device = _NOBODY if who is None else who.device
        waiting = _Waiting(device, exchange, polls=polls)
        exchange.on_gone = lambda: self._give_up(waiting)
        if polls:
            # Who closes a connection and who ends only one side of it look the same.  A call given
            # to a poll that nobody waits for is lost, so the poll ends; the other may poll again.
            exchange.on_ended = lambda: self._timed_out(waiting)
        self._waiting.setdefault(device, set()).add(waiting)
        waiting.timer = self._loop.call_later(timeout_s, self._timed_out, waiting)
        waiting.request = self._operations.ask(
            device,
            operation,
            lambda result: self._answered(waiting, result),
            timeout_s=timeout_s + self._settings.answer_timeout_s,
        )

    def spend(self, who: StoredCredentials) -> None:
        """One message of the device; RateLimited when it is over a limit."""
        self._ingest.at(time.time_ns() // 1_000_000, time.monotonic_ns())
        self._ingest.spend(who.device, who.scope)

    def _forget(self, waiting: _Waiting) -> None:
        if waiting.timer is not None:
            waiting.timer.cancel()
        held = self._waiting.get(waiting.device)
        if held is not None:
            held.discard(waiting)
            if not held:
                del self._waiting[waiting.device]

    def _give_up(self, waiting: _Waiting) -> None:
        self._forget(waiting)
        self._operations.drop(waiting.request)

    def _timed_out(self, waiting: _Waiting) -> None:
        self._give_up(waiting)
        waiting.exchange.answer(_TIMED_OUT)

    def _answered(self, waiting: _Waiting, result: Result) -> None:
        self._forget(waiting)
        waiting.exchange.answer(response_of(result))

    def close_device(self, device: int, *, removed: bool) -> None:
        """The device was removed or its credentials changed: nothing of it waits any more."""
        for waiting in list(self._waiting.get(device, ())):
            self._give_up(waiting)
            waiting.exchange.answer(_DELETED if removed else _UNAUTHORIZED)

    def stop(self) -> None:
        """Graceful stop: nobody waits for the controller any more."""
        for device in list(self._waiting):
            for waiting in list(self._waiting[device]):
                self._give_up(waiting)
                self._unavailable(waiting.exchange)


_METHODS: Final = {
    "telemetry": "telemetry", "attributes": "attributes", "attributes/updates": "updates",
    "rpc": "call", "rpc/*": "answer", "claim": "claim",
}  # fmt: skip


def _body(exchange: Exchange) -> bytes:
    assert exchange.request is not None
    return utf8(exchange.request.head, exchange.request.body)


def _query(exchange: Exchange) -> dict[str, str]:
    assert exchange.request is not None
    return parameters(exchange.request.head)


def _json(body: bytes) -> Response:
    return Response(200, body, "application/json")


def response_of(result: Result) -> Response:
    """What came of an operation."""
    match result:
        case Attributes():
            return _json(result.to_json())
        case Reply(body):
            return _json(body)
        case Told(notice):
            if isinstance(notice, RpcRequest):
                return _json(notice.to_json(with_id=True))
            return _json(notice.to_json())
        case Provisioned():
            return _json(result.to_json())
        case Done():
            return OK
        case PackageFound() | Chunk():
            raise AssertionError("downloads have their own handler")
        case Refusal(reason, message):
            if reason == "timeout":
                return _TIMED_OUT
            retry = RETRY if reason in ("unavailable", "limit") else ()
            return error_response(_REFUSALS[reason], message, retry)


def _preflight(head: Head) -> tuple[tuple[str, str], ...]:
    method = head.header(b"access-control-request-method")
    if method is None or not method.isascii():
        return ()
    wanted = head.header(b"access-control-request-headers") or b""
    allowed = (
        (("Access-Control-Allow-Headers", wanted.decode("ascii")),)
        if (wanted and wanted.isascii())
        else ()
    )
    return (
        ("Access-Control-Allow-Methods", method.decode("ascii")),
        *allowed,
        ("Access-Control-Max-Age", "1800"),
    )
