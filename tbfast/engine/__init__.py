"""Sans-IO state machines, one folder per protocol: time and bytes in, bytes and effects out."""
