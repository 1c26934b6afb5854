"""Devices that customers make their own with a secret the device told (MQTT spec 6.1, REST spec 6).

What a device told is kept as an entity of its own until it is used or has expired.
"""

import asyncio
import contextlib
import hmac
from collections.abc import Callable
from typing import Final, Literal

import msgspec

from tbfast.control.attributes import AttributeService
from tbfast.control.registry import Registry
from tbfast.errors import Conflict, NotFound
from tbfast.model.device import Change, Device
from tbfast.model.operations import Claim
from tbfast.obs.log import get_logger
from tbfast.store.registry import Entity, RegistryStore, Write

log = get_logger("tbfast.claims")

DATA: Final = "claimingData"  # server attributes
ALLOWED: Final = "claimingAllowed"

Outcome = Literal["SUCCESS", "FAILURE", "CLAIMED"]


class _Told(msgspec.Struct, frozen=True, array_like=True):
    secret: str
    expires_ms: int


class _Attribute(msgspec.Struct, frozen=True, rename="camel"):
    secret_key: str | None = ""
    expiration_time: int = 0


class Claims:
    """All methods belong to one event loop; what is answered is on disk.

    by_default: devices may be claimed without the server attribute `claimingAllowed`.
    """

    def __init__(
        self,
        registry: Registry,
        attributes: AttributeService,
        now_ms: Callable[[], int],
        *,
        by_default: bool,
        default_ms: int,
    ) -> None:
        self._registry = registry
        self._store: RegistryStore = registry.store
        self._attributes = attributes
        self._now_ms = now_ms
        self._by_default = by_default
        self._tasks: set[asyncio.Task[None]] = set()
        self._default_ms = default_ms

    async def told(self, number: int, claim: Claim) -> None:
        """A device may be claimed from now on; ignored where that is not possible."""
        device = await self._registry.device_by_number(number)
        if device is None or device.customer_id is not None or not self._allowed(device):
            return
        present = await self._store.get("claim", device.id)
        if present is not None and _decoded(present).expires_ms > self._now_ms():
            return  # the first one counts
        life_ms = claim.duration_ms if claim.duration_ms > 0 else self._default_ms
        told = _Told(claim.secret, self._now_ms() + life_ms)
        with contextlib.suppress(Conflict):  # another message of the device was first
            await self._write(device.id, present, told)

    async def claim(self, device: Device, customer_id: str, secret: str) -> Outcome:
        """A customer wants a device."""
        if device.customer_id is not None:
            return "CLAIMED"
        present = await self._store.get("claim", device.id)
        told = _decoded(present) if present is not None else self._by_attribute(device)
        if told is None:
            return "FAILURE"
        right = hmac.compare_digest(
            told.secret.encode("utf-8", "surrogatepass"), secret.encode("utf-8", "surrogatepass")
        )
        if not right or told.expires_ms <= self._now_ms():
            if present is not None:
                await self._forget(device.id)
            return "FAILURE"
        try:
            await self._registry.assign_device(device.id, customer_id, version=device.version)
        except Conflict:  # it was changed meanwhile, perhaps by another customer
            return await self.claim(await self._registry.device(device.id), customer_id, secret)
        await self._forget(device.id)
        await self._attributes.delete(device.number, "SERVER_SCOPE", (DATA, ALLOWED))
        return "SUCCESS"

    async def release(self, device: Device) -> None:
        """The device is nobody's again and, where that needs leave, may be claimed again."""
        await self._registry.assign_device(device.id, None)
        if not self._by_default:
            await self._attributes.save(device.number, "SERVER_SCOPE", {ALLOWED: b"true"})

    def registry_changed(self, change: Change) -> None:
        """A device that leaves the registry takes what it told along.

        What a crash leaves of it is found by nobody: ids are not used again.
        """
        if change.kind == "device" and change.op == "deleted":
            task = asyncio.get_running_loop().create_task(self._forget(change.id))
            self._tasks.add(task)
            task.add_done_callback(self._forgotten)

    def _forgotten(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("the claim of a removed device stays", error=str(error))

    def _allowed(self, device: Device) -> bool:
        return self._by_default or (
            self._attributes.text_of(device.number, "SERVER_SCOPE", ALLOWED) == b"true"
        )

    def _by_attribute(self, device: Device) -> _Told | None:
        text = self._attributes.text_of(device.number, "SERVER_SCOPE", DATA)
        if text is None:
            return None
        try:
            if text[:1] == b'"':  # JSON text that was saved as a string
                text = msgspec.json.decode(text, type=str).encode()
            data = msgspec.json.decode(text, type=_Attribute)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return None  # an administrator's mistake: there is nothing to claim with
        return _Told(data.secret_key or "", data.expiration_time)

    async def _forget(self, device_id: str) -> None:
        present = await self._store.get("claim", device_id)
        if present is not None:
            with contextlib.suppress(Conflict, NotFound):
                await self._write(device_id, present, None)

    async def _write(self, device_id: str, present: Entity | None, told: _Told | None) -> None:
        await self._store.commit(
            Write(
                kind="claim",
                id=device_id,
                expected=present.version if present is not None else 0,
                value=None if told is None else msgspec.msgpack.encode(told),
                change="claim",
            )
        )


def _decoded(entity: Entity) -> _Told:
    return msgspec.msgpack.decode(entity.value, type=_Told)
