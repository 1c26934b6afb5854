"""Settings for every test: how hard hypothesis looks, and a failure that prints its seed."""

import os

from hypothesis import HealthCheck, settings

# A shared machine is slow at times: the number of examples is the budget, not the clock.
_COMMON = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow],
}
settings.register_profile("short", max_examples=50, **_COMMON)
settings.register_profile("default", max_examples=200, **_COMMON)
settings.register_profile("long", max_examples=5_000, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
