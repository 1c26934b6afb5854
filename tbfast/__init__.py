"""tbfast: a ThingsBoard-compatible edge server that stores telemetry at the speed of the machine."""

__version__ = "0.1.0"
