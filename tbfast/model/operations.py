"""What devices ask of the node beside storing rows, and what the node tells them unasked.

One vocabulary for every protocol: an MQTT PUBLISH, an HTTP request and a CoAP request of the same
thing become the same operation.  Bodies are JSON text as `bytes`, compact and strict.
"""

from typing import ClassVar, Literal

import msgspec

from tbfast.model.device import CredentialsType
from tbfast.model.package import PackageType

Keys = tuple[str, ...]


class ReadAttributes(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Client and shared attributes of the device; () = every one, None = none of that scope.

    Answered by Attributes.
    """

    again: ClassVar[bool] = True
    client: Keys | None = ()
    shared: Keys | None = ()


class CallServer(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """A device calls a method of the server (MQTT spec 5.2).  Answered by Reply.

    `id`: the device's own number of the call, 0 where the protocol has none.
    """

    again: ClassVar[bool] = False
    method: str
    params: bytes = b"null"
    id: int = 0


class AnswerRpc(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """A device answers a call of the server; the body is its text as it came.

    Answered by Done, also for an id that nobody waits for.
    """

    again: ClassVar[bool] = True
    id: int
    body: bytes


class Claim(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """A device may be claimed with this secret; duration_ms <= 0 = the default (MQTT spec 6.1).

    Answered by Done, which does not say whether claiming is possible.
    """

    again: ClassVar[bool] = True
    secret: str = ""
    duration_ms: int = 0


class AwaitAttributes(msgspec.Struct, array_like=True, frozen=True, tag=5):
    """The next change of shared attributes, once (HTTP spec 3.4).  Answered by Told."""

    again: ClassVar[bool] = True


class AwaitRpc(msgspec.Struct, array_like=True, frozen=True, tag=6):
    """The next call of the server, once (HTTP spec 3.5).  Answered by Told."""

    again: ClassVar[bool] = True


class Provision(msgspec.Struct, array_like=True, frozen=True, tag=7, kw_only=True):
    """A device wants to be registered, or its credentials (MQTT spec 6.2); asked by nobody known.

    Answered by Provisioned.
    """

    again: ClassVar[bool] = False
    key: str
    secret: str
    device_name: str | None = None
    credentials_type: CredentialsType = "ACCESS_TOKEN"
    token: str | None = None
    client_id: str | None = None
    user_name: str | None = None
    password: str | None = None
    certificate: str | None = None
    gateway: bool = False


class FindPackage(msgspec.Struct, array_like=True, frozen=True, tag=8):
    """Which package a device is to have (HTTP spec 5): None = of any title or version.

    Answered by PackageFound.
    """

    again: ClassVar[bool] = True
    kind: PackageType
    title: str | None = None
    version: str | None = None


Operation = (
    ReadAttributes
    | CallServer
    | AnswerRpc
    | Claim
    | AwaitAttributes
    | AwaitRpc
    | Provision
    | FindPackage
)


class ReadChunk(msgspec.Struct, frozen=True):
    """So many bytes of the file of a package; a worker reads them itself.  Answered by Chunk."""

    id: str
    offset: int
    length: int


# Of packages: nothing is assigned, it is at a URL, another one is assigned.
RefusalReason = Literal[
    "unavailable", "timeout", "limit", "invalid", "unassigned", "elsewhere", "different"
]


class Attributes(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """JSON objects of the attributes found; b"" = none of that scope.

    Times are when each was last written, in the order of the members: Unix time in ms.
    """

    client: bytes = b""
    shared: bytes = b""
    client_times: tuple[int, ...] = ()
    shared_times: tuple[int, ...] = ()

    def to_json(self) -> bytes:
        """The answer of every protocol: a scope without attributes is omitted (MQTT spec 4.2)."""
        scopes = ((b'"client":', self.client), (b'"shared":', self.shared))
        return b"{%b}" % b",".join(name + body for name, body in scopes if body)


class Reply(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """What the server's method returned."""

    body: bytes


class Done(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """It is done, and durable where it has to be."""


class Provisioned(msgspec.Struct, array_like=True, frozen=True, tag=6):
    """What came of a wish to be registered; the value is JSON text, b"" = none."""

    status: Literal["SUCCESS", "NOT_FOUND", "FAILURE"]
    credentials_type: CredentialsType = "ACCESS_TOKEN"
    credentials_value: bytes = b""

    def to_json(self) -> bytes:
        """The answer of every protocol that speaks JSON (MQTT spec 6.2)."""
        if self.status == "SUCCESS":
            value = self.credentials_value
            head = b'"credentialsValue":%b,' % value if value else b""
            type_ = self.credentials_type.encode()
            return b'{%b"credentialsType":"%b","status":"SUCCESS"}' % (head, type_)
        if self.status == "NOT_FOUND":
            return b'{"errorMsg":"Provision data was not found!","status":"NOT_FOUND"}'
        return b'{"errorMsg":"Failed to provision device!","status":"FAILURE"}'


class PackageFound(msgspec.Struct, array_like=True, frozen=True, tag=7):
    """Which file the device may read, and what it is called."""

    id: str
    size: int
    file_name: str = ""
    content_type: str = ""


class Chunk(msgspec.Struct, array_like=True, frozen=True, tag=8):
    """Bytes of a package: as many as were asked for."""

    data: bytes


class Refusal(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """It is not done.  unavailable: trying later may work; the message is our own words."""

    reason: RefusalReason
    message: str = ""


class AttributesUpdated(msgspec.Struct, array_like=True, frozen=True, tag=11):
    """Shared attributes were saved: the JSON object of that save, and its Unix time in ms."""

    body: bytes
    at_ms: int = 0

    def to_json(self) -> bytes:
        """As a device receives it (MQTT spec 4.3)."""
        return self.body


class AttributesDeleted(msgspec.Struct, array_like=True, frozen=True, tag=12):
    """Shared attributes were deleted: the names that were asked for."""

    keys: Keys

    def to_json(self) -> bytes:
        """As a device receives it (MQTT spec 4.3)."""
        return msgspec.json.encode({"deleted": self.keys})


class RpcRequest(msgspec.Struct, array_like=True, frozen=True, tag=13):
    """The server calls a method of the device; ids count up per device from 0."""

    id: int
    method: str
    params: bytes = b"null"

    def to_json(self, *, with_id: bool = False) -> bytes:
        """As a device receives it; the id is in the body where the protocol has no other place."""
        head = b'"id":%d,' % self.id if with_id else b""
        method = msgspec.json.encode(self.method)
        return b'{%b"method":%b,"params":%b}' % (head, method, self.params)


Notice = AttributesUpdated | AttributesDeleted | RpcRequest


class Told(msgspec.Struct, array_like=True, frozen=True, tag=5):
    """What a waiting request was waiting for."""

    notice: Notice


Result = Attributes | Reply | Done | Refusal | Told | Provisioned | PackageFound | Chunk

Delivery = Literal["sent", "acknowledged", "timeout", "dropped", "too_big"]
