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


def check_issuers(chain: tuple[bytes, ...]) -> None:
    """PeerError: one of these certificates is not that of an authority, which may sign others."""
    try:
        for der in chain:
            extensions = x509.load_der_x509_certificate(der).extensions
            if not extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
                raise PeerError("a certificate that signs another is not that of an authority")
    except x509.ExtensionNotFound as error:
        raise PeerError("a certificate that signs another is not that of an authority") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PeerError("a client certificate cannot be read") from error


def common_name(der: bytes) -> str:
    """The first common name of the subject.  PeerError: there is none, or it is no text."""
    try:
        subject = x509.load_der_x509_certificate(der).subject
        names = subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PeerError("the subject of the client certificate cannot be read") from error
    if not names or not isinstance(names[0].value, str):
        raise PeerError("the client certificate has no common name")
    return names[0].value


def base64_of(der: bytes) -> str:
    """The body of a PEM certificate in one line."""
    return base64.b64encode(der).decode("ascii")


def credentials_id(der: bytes) -> str:
    """SHA3-256 of the base64 body, as X509_CERTIFICATE credentials are stored (MQTT spec 1.4)."""
    return hashlib.sha3_256(base64.b64encode(der)).hexdigest()
