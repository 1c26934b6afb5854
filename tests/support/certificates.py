"""Certificates made for a test, and a server that serves TLS with one of them."""

import datetime
import ssl
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from tests.support.server import Server

DAY = datetime.timedelta(days=1)


class Certificate:
    """A certificate with its key; self-signed unless `issuer` is given.

    first_day, last_day: of its validity, counted from today.
    """

    def __init__(
        self,
        name: str,
        *,
        issuer: "Certificate | None" = None,
        first_day: int = -1,
        last_day: int = 30,
        signed_with: "Certificate | None" = None,
        authority: bool = False,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.chain: list[Certificate] = [self, *(issuer.chain if issuer else [])]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject if issuer else subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + first_day * DAY)
            .not_valid_after(now + last_day * DAY)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), True)
            .sign((signed_with or issuer or self).key, hashes.SHA256())
        )

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def key_pem(self, password: str = "") -> str:
        how = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how).decode()

    def save(self, directory: Path, stem: str = "client") -> tuple[Path, Path]:
        """Files of the chain and of the key."""
        chain, key = directory / f"{stem}.pem", directory / f"{stem}_key.pem"
        chain.write_text("".join(one.pem for one in self.chain))
        key.write_text(self.key_pem())
        return chain, key


def forged(
    certificate: Certificate, was: bytes, becomes: bytes, signer: Certificate | None = None
) -> bytes:
    """The DER of a certificate with as many other bytes in it, signed again."""
    assert len(was) == len(becomes)
    signed = certificate.certificate.tbs_certificate_bytes.replace(was, becomes)
    signature = (signer or certificate).key.sign(signed, ec.ECDSA(hashes.SHA256()))
    ecdsa_with_sha256 = bytes.fromhex("300a06082a8648ce3d040302")
    return _der(0x30, signed, ecdsa_with_sha256, _der(0x03, b"\0" + signature))


def _der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8 or 1, "big")
    return bytes([tag]) + (size if len(body) < 0x80 else bytes([0x80 | len(size)]) + size) + body


class TlsServer(Server):
    """A node that listens for TLS as well, under a certificate of its own in `directory`."""

    def __init__(
        self, directory: Path, *, env: dict[str, str] | None = None, **options: int
    ) -> None:
        self.directory = directory
        self.use(Certificate("localhost"))
        super().__init__(
            env={
                "MQTT_SSL_ENABLED": "true",
                "MQTT_SSL_BIND_PORT": "0",
                "MQTT_SSL_PEM_CERT": str(directory / "server.pem"),
                "MQTT_SSL_PEM_KEY": str(directory / "server_key.pem"),
            }
            | (env or {}),
            **options,  # type: ignore[arg-type]
        )

    def use(self, certificate: Certificate) -> Self:
        """Writes the server's certificate files."""
        self.certificate = certificate
        certificate.save(self.directory, "server")
        return self

    def add_x509_device(self, name: str, certificate: Certificate) -> str:
        """A device that is let in by its certificate; its name."""
        self.add_device(name)
        path = f"/api/device/{self.device_id(name)}/credentials"
        status, credentials = self.rest("GET", path)
        assert status == 200, credentials
        credentials |= {
            "credentialsType": "X509_CERTIFICATE",
            "credentialsId": "",
            "credentialsValue": certificate.pem,
        }
        status, answer = self.rest("POST", "/api/device/credentials", credentials)
        assert status == 200, answer
        return name

    def add_chain_profile(
        self, name: str, authority: Certificate, *, creates: bool = True
    ) -> dict[str, Any]:
        """A profile whose devices bring a certificate of this authority: `<name>.example`."""
        status, saved = self.rest(
            "POST",
            "/api/deviceProfile",
            {
                "name": name,
                "type": "DEFAULT",
                "transportType": "DEFAULT",
                "provisionType": "X509_CERTIFICATE_CHAIN",
                "profileData": {
                    "configuration": {"type": "DEFAULT"},
                    "transportConfiguration": {"type": "DEFAULT"},
                    "provisionConfiguration": {
                        "type": "X509_CERTIFICATE_CHAIN",
                        "provisionDeviceSecret": authority.pem,
                        "certificateRegExPattern": r"([^.]+)\.example",
                        "allowCreateNewDevicesByX509Certificate": creates,
                    },
                },
            },
        )
        assert status == 200, saved
        answer: dict[str, Any] = saved
        return answer

    def context(
        self, client: Certificate | None = None, directory: Path | None = None
    ) -> ssl.SSLContext:
        """A client's side: trusts the server's certificate of now, presents `client`."""
        context = ssl.create_default_context(cadata=self.certificate.pem)
        if client is not None:
            assert directory is not None
            context.load_cert_chain(*client.save(directory))
        return context
