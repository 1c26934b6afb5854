"""What devices ask of the controller: each operation to the service that carries it out."""

import asyncio
from collections.abc import Callable

from tbfast.control.attributes import AttributeService
from tbfast.control.claims import Claims
from tbfast.control.device_calls import DeviceCalls
from tbfast.control.package_finder import PackageFinder
from tbfast.control.provisioning import Provisioning
from tbfast.control.rpc import RpcService
from tbfast.control.sessions import Sessions
from tbfast.errors import StoreError
from tbfast.model.operations import (
    AnswerRpc,
    AwaitAttributes,
    AwaitRpc,
    CallServer,
    Claim,
    Done,
    FindPackage,
    Notice,
    Operation,
    Provision,
    ReadAttributes,
    Refusal,
    Result,
    Told,
)


class DeviceOperations:
    """All methods belong to one event loop; cancelling one gives its waiting up."""

    def __init__(
        self,
        attributes: AttributeService,
        rpc: RpcService,
        calls: DeviceCalls,
        sessions: Sessions,
        claims: Claims,
        provisioning: Provisioning,
        packages: PackageFinder,
        now_ms: Callable[[], int],
    ) -> None:
        self._attributes = attributes
        self._rpc = rpc
        self._calls = calls
        self._sessions = sessions
        self._claims = claims
        self._provisioning = provisioning
        self._packages = packages
        self._now_ms = now_ms
        self.on_asked: Callable[[int, int], None] = _ignored  # device, Unix time in ms

    async def carry_out(self, device: int, operation: Operation) -> Result:
        """The result; Refusal instead of an error that the device must hear of."""
        if not isinstance(operation, FindPackage):  # no activity (MQTT spec 8.5)
            self.on_asked(device, self._now_ms())
        try:
            match operation:
                case ReadAttributes():
                    return self._attributes.for_device(device, operation)
                case CallServer():
                    return await self._calls.call(device, operation)
                case AnswerRpc(request, body):
                    await self._rpc.answered(device, request, body)
                    return Done()
                case Claim():
                    await self._claims.told(device, operation)
                    return Done()
                case Provision():
                    return await self._provisioning.provision(operation)
                case FindPackage():
                    return await self._packages.find(device, operation)
                case AwaitAttributes():
                    return Told(await self._next(device, calls=False))
                case AwaitRpc():
                    return Told(await self._next(device, calls=True))
        except StoreError as error:
            return Refusal("unavailable", str(error))

    async def _next(self, device: int, *, calls: bool) -> Notice:
        told: asyncio.Future[Notice] = asyncio.get_running_loop().create_future()

        def tell(notice: Notice) -> None:
            if not told.done():
                told.set_result(notice)

        stop = self._sessions.poll(device, calls, tell)
        try:
            return await told
        finally:
            stop()


def _ignored(device: int, at_ms: int) -> None:
    """Nobody wants to know."""
