"""The controller: everything that must have exactly one value, and what people read of it."""
