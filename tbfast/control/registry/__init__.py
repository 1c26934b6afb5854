"""The registry service: devices, credentials, profiles and what belongs to them (design 4)."""

from tbfast.control.registry.customers import CustomerDraft
from tbfast.control.registry.devices import DeviceDraft
from tbfast.control.registry.listing import DevicePage, DeviceQuery, SortProperty
from tbfast.control.registry.naming import Naming
from tbfast.control.registry.profile_rules import ProfileDraft
from tbfast.control.registry.service import Registry, wall_clock_ms

__all__ = [
    "CustomerDraft",
    "DeviceDraft",
    "DevicePage",
    "DeviceQuery",
    "Naming",
    "ProfileDraft",
    "Registry",
    "SortProperty",
    "wall_clock_ms",
]
