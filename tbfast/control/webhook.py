"""POST of devices' calls to an operator's address; its answer is the device's answer."""

import asyncio
import http.client
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from tbfast import limits
from tbfast.control.device_calls import DeviceCall, strict_json
from tbfast.errors import PeerError

_PART_BYTES: Final = 16_384


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What a device says goes to the configured address and nowhere else."""

    def redirect_request(self, *_: object) -> None:
        """Makes the redirect the error that it is here."""


class Webhook:
    """Blocking requests in threads of their own, WEBHOOK_REQUESTS at once."""

    def __init__(self, url: str, *, timeout_ms: int) -> None:
        self._url = url
        self._timeout_s = timeout_ms / 1000
        # No proxies: the environment of a server must not send its requests elsewhere.
        self._opener = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
        self._threads = ThreadPoolExecutor(limits.WEBHOOK_REQUESTS, "webhook")

    async def answer(self, call: DeviceCall) -> bytes:
        """The body of the answer; PeerError when it is no JSON in time with status 200."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._post, msgspec.json.encode(call))

    def close(self) -> None:
        """Starts nothing more; requests under way end by themselves in time."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _post(self, body: bytes) -> bytes:
        deadline = time.monotonic() + self._timeout_s
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        request = urllib.request.Request(self._url, body, headers)
        found = bytearray()
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                while part := response.read1(_PART_BYTES):
                    found += part
                    if len(found) > limits.WEBHOOK_ANSWER_BYTES:
                        raise PeerError("the webhook's answer is too long")
                    if time.monotonic() > deadline:
                        raise PeerError("the webhook's answer takes too long")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise PeerError(f"the webhook failed: {error}") from error
        return strict_json(bytes(found))
