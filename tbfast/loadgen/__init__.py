"""The device side of the wire: load for benchmarks, and the fleet of the demo."""
