"""Answers."""

import msgspec
from starlette.responses import Response


def json_answer(body: object) -> Response:
    """200 with a value as JSON."""
    return Response(msgspec.json.encode(body), media_type="application/json")
