"""A form with one file, as browsers and `requests` send it."""

BOUNDARY = "----b0undary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def form(data: bytes, *, name: str = "file", file_name: str = "fw.bin", kind: str = "") -> bytes:
    """The body; `kind` is the part's content type."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{file_name}"'
    typed = f"\r\nContent-Type: {kind}" if kind else ""
    return f"{head}{typed}\r\n\r\n".encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
