"""Devices that register themselves by a certificate chain (MQTT spec 1.5)."""

import logging
import re

from tbfast import limits
from tbfast.codec import x509
from tbfast.control.credentials import CredentialsDraft
from tbfast.control.registry import DeviceDraft, Registry
from tbfast.control.rules import InvalidEntity, UniqueConflict
from tbfast.errors import Conflict, PeerError
from tbfast.model.profile import DeviceProfile, provision_of
from tbfast.obs.log import get_logger

log = get_logger("tbfast.provision")


class ChainProvisioning:
    """Gives the first certificate of a chain a device of the profile that knows a later one.

    The worker has proved that the client holds the first one's key and that each certificate is
    signed by the next.  Beyond ThingsBoard: what signs must not be a device's certificate.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def provision(self, chain: tuple[bytes, ...]) -> None:
        """Returns whether or not there is a device now: the credentials will tell."""
        for number, der in enumerate(chain):
            key = x509.credentials_id(der)
            known = await self._registry.lookup_credentials(key)
            if known is not None and known[1].type == "X509_CERTIFICATE":
                return
            profile = await self._registry.profiles.by_provision_key(key)
            if profile is None or profile.provision_type != "X509_CERTIFICATE_CHAIN":
                continue
            try:
                x509.check_issuers(chain[1:number])
                await self._register(profile, chain[0])
            except (PeerError, InvalidEntity, UniqueConflict, Conflict) as error:
                log.limited(
                    "provision", logging.INFO, "a certificate chain provisions no device",
                    profile=profile.name, error=str(error),
                )  # fmt: skip
            return

    async def _register(self, profile: DeviceProfile, leaf: bytes) -> None:
        settings = provision_of(profile)
        name = _device_name(settings.certificate_pattern, x509.common_name(leaf))
        secret = CredentialsDraft("X509_CERTIFICATE", "", x509.base64_of(leaf))
        device = await self._registry.device_by_name(name)
        if device is None:
            if not settings.creates_devices:
                raise PeerError("the profile creates no devices")
            draft = DeviceDraft(name=name, profile_id=profile.id)
            await self._registry.add_device(draft, secret)
            log.info("device created by its certificate", device=name, profile=profile.name)
            return
        if device.profile_id != profile.id:
            raise PeerError("a device of that name has another profile")
        record = await self._registry.record(device.id)
        if record.credentials.type == "X509_CERTIFICATE":
            await self._registry.update_credentials(
                device.id, "", type="X509_CERTIFICATE", value=secret.value
            )
            log.info("device has a new certificate", device=name, profile=profile.name)


def _device_name(pattern: str, common_name: str) -> str:
    """The first group of the pattern, searched anywhere in the name."""
    found = re.search(pattern, common_name[: limits.REGISTRY_NAME_CHARS])
    if found is None or not found.group(1):
        raise PeerError("the pattern finds no device name in the certificate")
    return found.group(1)
