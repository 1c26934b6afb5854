"""The WebSocket API: subscriptions to telemetry and attributes as they change (REST spec 14)."""
