"""Runs the HTTP reader over a stream and says what it found, in one comparable form."""

from collections.abc import Iterable

from tbfast.codec.http import HttpError, RequestReader


def outcome(pieces: Iterable[bytes], reader: RequestReader | None = None) -> list[str | int]:
    """Requests as "METHOD path length-of-body"; an error as its status."""
    reader = reader or RequestReader()
    found: list[str | int] = []
    for piece in pieces:
        reader.feed(piece)
        try:
            while (request := reader.next_request()) is not None:
                head = request.head
                found.append(f"{head.method} {head.path.decode('latin-1')} {len(request.body)}")
        except HttpError as error:
            found.append(error.status)
    return found
