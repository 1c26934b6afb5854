"""The MQTT session: everything about a device connection but sockets and storage."""
