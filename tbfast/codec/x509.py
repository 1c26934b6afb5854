"""Client certificates: what CONNECT has to know about a presented chain (MQTT spec 1.5)."""

import base64
import hashlib
import itertools

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from tbfast import limits
from tbfast.errors import PeerError
from tbfast.model.auth import ClientCertificate


def read_chain(chain: tuple[bytes, ...]) -> ClientCertificate:
    """The first certificate of a chain of DER, the peer's own; each must be signed by the next.

    PeerError: a certificate cannot be read, a link does not hold, or there are too many.
    """
    if len(chain) > limits.TLS_CHAIN_CERTIFICATES:
        raise PeerError("the client presents too many certificates")
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain]
        for signed, issuer in itertools.pairwise(certificates):
            signed.verify_directly_issued_by(issuer)
        own = certificates[0]
        return ClientCertificate(
            credentials_id(chain[0]),
            int(own.not_valid_before_utc.timestamp() * 1000),
            int(own.not_valid_after_utc.timestamp() * 1000),
            chain,
        )
    except InvalidSignature as error:
        raise PeerError("a client certificate is not signed by the next of its chain") from error
    except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm) as error:
        raise PeerError("a client certificate cannot be read") from error


def credentials_id(der: bytes) -> str:
    """SHA3-256 of the base64 body, as X509_CERTIFICATE credentials are stored (MQTT spec 1.4)."""
    return hashlib.sha3_256(base64.b64encode(der)).hexdigest()
