"""Sans-IO state machines, one folder per protocol: time and bytes come in, bytes and effects go out."""
