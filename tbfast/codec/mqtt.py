"""MQTT 3.1, 3.1.1 and 5: bytes to packets (tbfast.model.mqtt) and back.

One codec for both ends: the server, the load generator and the tests.  What counts as malformed:
MQTT spec 1.2 and hostile-input spec 4 to 8.
"""

from tbfast._ext.mqtt import (
    Decoder,
    MalformedPacket,
    PacketTooLarge,
    UnsupportedProtocol,
    decode,
    frame_length,
)
from tbfast._ext.mqtt_write import encode

__all__ = [
    "Decoder",
    "MalformedPacket",
    "PacketTooLarge",
    "UnsupportedProtocol",
    "decode",
    "encode",
    "frame_length",
]
