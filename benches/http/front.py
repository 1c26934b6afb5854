"""A stand-in for the controller that costs next to nothing: answers every request alike.

python -m benches.http.front PATH
"""

import asyncio
import sys
from typing import cast

import uvloop

_ANSWER = (
    b"HTTP/1.1 200 OK\r\ndate: Thu, 26 Nov 2026 18:48:25 GMT\r\nserver: uvicorn\r\n"
    b"content-length: 100\r\ncontent-type: application/json\r\n\r\n" + b"x" * 100
)


class _Peer(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(_ANSWER)  # wrk has one request at a time on a connection


async def main(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(_Peer, path)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
