"""The running server over HTTP: the Unix socket in its data directory, or a URL with a login."""

import contextlib
import http.client
import select
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from tbfast.cli.devices import (
    CredentialsBody,
    DeviceBody,
    DeviceChanges,
    DevicePage,
    DeviceView,
    Reference,
    changed_body,
    secret_body,
)
from tbfast.cli.exits import Unreachable, UsageError
from tbfast.cli.target import ProfileDraft, ProfileView
from tbfast.errors import Conflict, NotFound, StoreError, TbfastError
from tbfast.model.ranges import RangeQuery

SOCKET_NAME: Final = "tbfast.sock"
_CONNECT_TIMEOUT_S: Final = 5.0
_ANSWER_TIMEOUT_S: Final = 60.0
_PAGE_SIZE: Final = 1_000
_ALL: Final = (1 << 31) - 1

T = TypeVar("T")


class _Profile(msgspec.Struct, rename="camel"):
    id: Reference
    name: str
    transport_type: str
    provision_type: str
    default: bool
    created_time: int
    description: str | None
    provision_device_key: str | None
    profile_data: dict[str, Any]


class _Profiles(msgspec.Struct, rename="camel"):
    data: list[_Profile]


class NodeView(msgspec.Struct, frozen=True, rename="camel"):
    """Where the server listens and which process is above all others."""

    supervisor_pid: int
    mqtt_port: int
    http_port: int


class SealedKind(msgspec.Struct):
    """Values of one kind."""

    points: int
    bytes: int


class Sealed(msgspec.Struct):
    """What a seal wrote; bytes before compression, of kinds without their times."""

    runs: int
    points: int
    bytes: int
    kinds: dict[str, SealedKind]


class _Tokens(msgspec.Struct):
    token: str


class _Envelope(msgspec.Struct):
    message: str


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(_CONNECT_TIMEOUT_S)
            sock.connect(str(self._path))
            sock.settimeout(self.timeout)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


def connect(data_dir: Path) -> "Server | None":
    """The server of this data directory; None when nobody listens there.

    Raises Unreachable when somebody does but cannot be talked to.
    """
    path = data_dir / SOCKET_NAME
    connection = _UnixConnection(path, _ANSWER_TIMEOUT_S)
    try:
        connection.connect()
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        connection.close()
        return None
    except PermissionError as error:
        raise Unreachable(f"no permission for {path}; run as the user of the server") from error
    except OSError as error:
        raise Unreachable(
            f"the server at {path} does not answer ({error}); look at its log or restart it"
        ) from error
    return Server(str(path), connection)


def connect_url(url: str) -> "Server":
    """The server at http://host:port or https://host:port; it wants a login.

    Raises UsageError for another kind of URL, Unreachable when nobody answers there.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{url!r}: {error}") from error
    kind = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}.get(
        parts.scheme
    )
    if kind is None or not host or parts.path.strip("/") or parts.query or parts.username:
        raise UsageError(f"{url!r} is not like http://host:8080 or https://host")
    connection = kind(host, port, timeout=_CONNECT_TIMEOUT_S)
    try:
        connection.connect()
    except OSError as error:
        connection.close()
        raise Unreachable(f"cannot connect to {url}: {error}") from error
    connection.sock.settimeout(_ANSWER_TIMEOUT_S)
    return Server(url, connection)


class Server:
    """A `Target`; one connection, one request at a time."""

    def __init__(self, where: str, connection: http.client.HTTPConnection) -> None:
        self._where = where
        self._connection = connection
        self._headers = {"Content-Type": "application/json"}

    def login(self, email: str, password: str) -> None:
        """POST /api/auth/login; the token goes with every request from now on."""
        body = {"username": email, "password": password}
        pair = self.call("POST", "/api/auth/login", _Tokens, body=body)
        self._headers["X-Authorization"] = f"Bearer {pair.token}"

    def use_key(self, api_key: str) -> None:
        """An API key goes with every request from now on."""
        self._headers["X-Authorization"] = f"ApiKey {api_key}"

    def create(self, changes: DeviceChanges) -> DeviceView:
        """POST /api/device, or /api/device-with-credentials."""
        return self.with_credentials(self._saved({}, changes).view())

    def change(self, device: DeviceView, changes: DeviceChanges) -> DeviceView:
        """The same with the id in it; Conflict if somebody else saves it meanwhile."""
        present = self.get(f"/api/device/{device.id}", dict[str, Any])
        return self.with_credentials(self._saved(present, changes).view())

    def _saved(self, present: dict[str, Any], changes: DeviceChanges) -> DeviceBody:
        path, body = "/api/device", changed_body(present, changes)
        if changes.secret is not None:
            path = "/api/device-with-credentials"
            body = {"device": body, "credentials": secret_body(changes.secret)}
        return self.call("POST", path, DeviceBody, body=body)

    def find(self, text: str) -> DeviceView:
        """By name, then by id."""
        try:
            query = {"deviceName": text}
            found = self.call("GET", "/api/tenant/device", DeviceBody, query)
        except NotFound:
            found = self._by_id(text)
        return found.view()

    def with_credentials(self, device: DeviceView) -> DeviceView:
        """GET /api/device/{id}/credentials."""
        found = self.get(f"/api/device/{device.id}/credentials", CredentialsBody)
        return device.let_in_by(
            found.credentials_type, found.credentials_id, found.credentials_value
        )

    def devices(self, text_search: str) -> Iterator[DeviceView]:
        """GET /api/tenant/devices, page by page."""
        query: dict[str, Any] = {"pageSize": _PAGE_SIZE, "sortProperty": "name"}
        query |= {"page": 0, "textSearch": text_search}
        while True:
            page = self.call("GET", "/api/tenant/devices", DevicePage, query)
            yield from (device.view() for device in page.data)
            if not page.has_next:
                return
            query["page"] += 1

    def remove(self, device: DeviceView) -> None:
        """DELETE /api/device/{id}."""
        self.request("DELETE", f"/api/device/{device.id}")

    def profiles(self) -> list[ProfileView]:
        """GET /api/deviceProfiles, in one page."""
        query = {"pageSize": _ALL, "page": 0, "sortProperty": "name"}
        return [
            _profile_view(profile)
            for profile in self.call("GET", "/api/deviceProfiles", _Profiles, query).data
        ]

    def create_profile(self, draft: ProfileDraft) -> ProfileView:
        """POST /api/deviceProfile."""
        body = {
            "name": draft.name,
            "description": draft.description,
            "transportType": draft.transport_type,
            "profileData": draft.data,
            "provisionDeviceKey": draft.provision_key,
        }
        return _profile_view(self.call("POST", "/api/deviceProfile", _Profile, (), body))

    def remove_profile(self, profile: ProfileView) -> None:
        """DELETE /api/deviceProfile/{id}."""
        self.request("DELETE", f"/api/deviceProfile/{profile.id}")

    def history(self, device: DeviceView, query: RangeQuery) -> bytes:
        """GET .../values/timeseries/history, in JSON types."""
        asked: list[tuple[str, Any]] = [
            ("useStrictDataTypes", "true"),
            ("limit", query.limit),
            ("orderBy", "ASC" if query.ascending else "DESC"),
            ("agg", query.aggregation),
            ("interval", query.interval_ms),
            ("intervalType", query.interval_type),
            ("timeZone", query.time_zone),
        ]
        asked += [("key", key) for key in query.keys or ()]
        asked += [("startTs", query.start_ms)] if query.start_ms is not None else []
        asked += [("endTs", query.end_ms)] if query.end_ms is not None else []
        path = f"/api/plugins/telemetry/DEVICE/{device.id}/values/timeseries/history"
        return self.request("GET", path, asked)

    def delete_points(
        self, device: DeviceView, keys: Sequence[str], start_ms: int | None, end_ms: int | None
    ) -> None:
        """DELETE .../timeseries/delete; without times all points of the keys."""
        query: list[tuple[str, Any]] = [("key", key) for key in keys]
        query += [("rewriteLatestIfDeleted", "true")]
        if start_ms is None or end_ms is None:
            query += [("deleteAllDataForKeys", "true")]
        else:
            query += [("startTs", start_ms), ("endTs", end_ms)]
        self.request(
            "DELETE", f"/api/plugins/telemetry/DEVICE/{device.id}/timeseries/delete", query
        )

    def lines(self, device: DeviceView | None) -> Iterator[bytes]:
        """GET /api/tail: live lines for as long as the server sends them."""
        query = {"device": device.id} if device else {}
        with self._answers():
            self._connection.timeout = None
            self._connection.sock.settimeout(None)
            response = self._send("GET", "/api/tail", query)
            while text := response.readline():
                yield text

    def get(self, path: str, type_: type[T]) -> T:
        """Any other resource, decoded."""
        return self.call("GET", path, type_)

    def be_patient(self, timeout_s: float) -> None:
        """Wait so long for the next answer."""
        self._connection.timeout = timeout_s
        self._connection.sock.settimeout(timeout_s)

    def node(self) -> NodeView:
        """GET /api/node."""
        return self.call("GET", "/api/node", NodeView)

    def seal(self) -> Sealed:
        """POST /api/node/seal."""
        return self.call("POST", "/api/node/seal", Sealed)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[bytes]:
        """POST /api/node/backup: says where a copy of the stores is while the context lasts.

        Unreachable when the server took it away before the end.
        """
        with self._answers():
            response = self._send("POST", "/api/node/backup")
            text = response.readline()
        try:
            yield text
        except StoreError as error:
            if select.select([self._connection.sock], [], [], 0)[0]:
                raise Unreachable(
                    "the server gave up the backup: it stopped, or its disk is short; see its log"
                ) from error
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _by_id(self, text: str) -> DeviceBody:
        try:
            return self.get(f"/api/device/{quote(text, safe='')}", DeviceBody)
        except (NotFound, Refused):
            raise NotFound(f"there is no device with the name or id {text!r}") from None

    def call(self, method: str, path: str, type_: type[T], query: Any = (), body: Any = None) -> T:
        """One request; its answer decoded."""
        text = self.request(method, path, query, body)
        try:
            return msgspec.json.decode(text, type=type_)
        except msgspec.DecodeError as error:
            raise TbfastError(f"unexpected answer to {method} {path}: {error}") from error

    def request(self, method: str, path: str, query: Any = (), body: Any = None) -> bytes:
        """One request; its answer.  NotFound, Conflict, or Refused with the status as its code."""
        with self._answers():
            return self._send(method, path, query, body).read()

    def upload(
        self, path: str, query: Any, body: Iterable[bytes], length: int, content_type: str
    ) -> bytes:
        """POST of a body that is read while it is sent; the answer."""
        headers = self._headers | {"Content-Type": content_type, "Content-Length": str(length)}
        with self._answers():
            # A server that refuses early says why before it stops reading.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._connection.request("POST", f"{path}?{urlencode(query)}", body, headers)
            return self._checked(self._connection.getresponse()).read()

    def _send(
        self, method: str, path: str, query: Any = (), body: Any = None
    ) -> http.client.HTTPResponse:
        """The response, its body unread; raises for every status but 200."""
        target = f"{path}?{urlencode(query)}" if query else path
        encoded = None if body is None else msgspec.json.encode(body)
        self._connection.request(method, target, encoded, self._headers)
        return self._checked(self._connection.getresponse())

    def _checked(self, response: http.client.HTTPResponse) -> http.client.HTTPResponse:
        if response.status == 200:
            return response
        message = _message(response)
        if response.status == 404:
            raise NotFound(message)
        raise (
            Conflict(message) if response.status == 409 else Refused(message, code=response.status)
        )

    @contextlib.contextmanager
    def _answers(self) -> Iterator[None]:
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise Unreachable(
                f"the server at {self._where} stopped answering ({reason}); look at its log"
            ) from error


class Refused(TbfastError):
    """The server answered with an error; its own words."""


def _message(response: http.client.HTTPResponse) -> str:
    text = response.read()
    try:
        return msgspec.json.decode(text, type=_Envelope).message
    except (msgspec.DecodeError, UnicodeDecodeError):
        return f"the server answered {response.status} {response.reason}"


def _profile_view(profile: _Profile) -> ProfileView:
    return ProfileView(**{**msgspec.structs.asdict(profile), "id": profile.id.id})
