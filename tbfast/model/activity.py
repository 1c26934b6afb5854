"""What is told of a device's activity, and how soon (MQTT spec 8.5)."""

from typing import Final, Literal

ReportingStrategy = Literal["FIRST", "LAST", "FIRST_AND_LAST", "ALL"]

LOOK_MS: Final = 500  # between two looks for activity where it is to be reported at once


def look_ms(strategy: ReportingStrategy, period_ms: int) -> int:
    """How often activity is looked for, ms; at least twice in a period unless at its end only."""
    return period_ms if strategy == "LAST" else min(LOOK_MS, period_ms // 2)
