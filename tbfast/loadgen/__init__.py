"""Load tests and simulated fleets: the device side of the wire."""
