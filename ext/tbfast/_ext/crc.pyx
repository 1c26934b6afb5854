"""CRC32C of Python bytes."""

from libc.stdint cimport uint8_t, uint32_t

from tbfast._ext.batch cimport tbf_crc32c


def crc32c(const uint8_t[::1] data not None, uint32_t before=0):
    """CRC32C of data that follows what `before` is the CRC32C of."""
    if data.shape[0] == 0:
        return before
    return tbf_crc32c(before, &data[0], <size_t>data.shape[0])
