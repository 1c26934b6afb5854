"""One server with TLS for all clients."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import TlsServer


@pytest.fixture(scope="session")
def tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """Leave it as it was."""
    with TlsServer(tmp_path_factory.mktemp("certificates")) as running:
        yield running


@pytest.fixture
def ca(tls_server: TlsServer, tmp_path: Path) -> Path:
    """The file of the certificate that a client has to trust."""
    path = tmp_path / "ca.pem"
    path.write_text(tls_server.certificate.pem)
    return path
