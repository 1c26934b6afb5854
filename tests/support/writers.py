"""Devices whose worker is known: which one takes a connection is the kernel's choice."""

import contextlib
import http.client
from collections.abc import Iterator

from tests.support.node import Node


class Writer:
    """An HTTP connection to one worker."""

    def __init__(self, node: Node) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", node.http_port, timeout=20)
        self._connection.connect()
        self.close = self._connection.close
        assert self._connection.sock is not None
        self.worker = node.worker_of(self._connection.sock)

    def post(self, token: str, body: bytes) -> None:
        """Returns when it is acknowledged."""
        self._connection.request("POST", f"/api/v1/{token}/telemetry", body)
        answer = self._connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text


@contextlib.contextmanager
def writers(node: Node) -> Iterator[list[Writer]]:
    """One for each worker."""
    with contextlib.ExitStack() as stack:
        found: dict[int, Writer] = {}
        while len(found) < node.workers:
            writer = stack.enter_context(contextlib.closing(Writer(node)))
            found.setdefault(writer.worker, writer)
        yield [found[number] for number in sorted(found)]
