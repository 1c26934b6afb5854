"""Certificate authorities that the whole world trusts, as this machine knows them (MQTT spec 1.5).

Whoever pays one of them gets a certificate of its: as the authority of a device profile it would
let strangers register devices.
"""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tbfast import limits
from tbfast.control.credentials import bare_chain
from tbfast.control.rules import InvalidEntity

_BUNDLES: Final = (  # where systems keep them, should the TLS library not say
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)


def is_well_known(certificate: str) -> bool:
    """Whether a certificate, as `bare_chain` has it, is one of those; reads files.

    Raises InvalidEntity where they cannot be read.
    """
    try:
        return any(certificate in _certificates(path) for path in _files())
    except OSError as error:
        raise InvalidEntity(f"the well-known authorities cannot be read: {error}") from error


def _files() -> Iterator[Path]:
    """One bundle is enough; where there is none, one file for each authority."""
    paths = ssl.get_default_verify_paths()
    named: list[str | None] = [paths.cafile, *_BUNDLES]  # None where there is no such file
    for bundle in named:
        if bundle is not None and Path(bundle).is_file():
            yield Path(bundle)
            return
    yield from Path(paths.openssl_capath).glob("*.0")


def _certificates(path: Path) -> list[str]:
    with path.open("rb") as file:
        text = file.read(limits.AUTHORITIES_BYTES).decode("latin-1")
    try:
        return bare_chain(text)
    except InvalidEntity:  # it holds none
        return []
