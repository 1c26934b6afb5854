"""tbfast: a ThingsBoard-compatible edge server storing telemetry at the speed of the machine."""

__version__ = "0.1.0"
