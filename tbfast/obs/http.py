"""What ``/metrics``, ``/healthz`` and ``/readyz`` answer; transport is the caller's business."""

from typing import Final, NamedTuple

from tbfast.obs.metrics import CONTENT_TYPE, NodeMetrics

_TEXT: Final = "text/plain; charset=utf-8"
_FRESH_S: Final = 0.1  # a flood of scrapes costs one rendering per interval


class Page(NamedTuple):
    """Status, Content-Type and body."""

    status: int
    content_type: str
    body: bytes


class HealthPages:
    """The pages of one node, the same from each of its processes."""

    def __init__(self, node: NodeMetrics) -> None:
        self._node = node
        self._rendered = b""
        self._rendered_s = float("-inf")

    def page(self, path: bytes, now_s: float) -> Page | None:
        """The page at a path, None if it is not one of these; now_s: monotonic seconds."""
        if path == b"/healthz":
            return Page(200, _TEXT, b"ok\n")
        if path == b"/readyz":
            reasons = self._node.unready(now_s)
            if reasons:
                return Page(503, _TEXT, "".join(f"{reason}\n" for reason in reasons).encode())
            return Page(200, _TEXT, b"ready\n")
        if path == b"/metrics":
            if now_s - self._rendered_s >= _FRESH_S:
                self._rendered = self._node.render()
                self._rendered_s = now_s
            return Page(200, CONTENT_TYPE, self._rendered)
        return None
