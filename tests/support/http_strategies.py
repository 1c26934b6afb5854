"""HTTP requests, and cuts of a byte stream, for property tests."""

from itertools import pairwise

from hypothesis import strategies as st

token = st.text("abcXYZ019-", min_size=1, max_size=8)


@st.composite
def requests(draw):
    method = draw(st.sampled_from(["GET", "POST", "HEAD", "PUT"]))
    lines = [f"{method} /{draw(token)} HTTP/1.1", "Host: a"]
    lines += [f"x-{draw(token)}: {draw(token)}" for _ in range(draw(st.integers(0, 4)))]
    body = draw(st.binary(max_size=40))
    shape = draw(st.sampled_from(["none", "length", "chunked"]))
    data = b""
    if shape == "length":
        lines.append(f"Content-Length: {len(body)}")
        data = body
    elif shape == "chunked":
        lines.append("Transfer-Encoding: chunked")
        while body:
            size = draw(st.integers(1, len(body)))
            data += b"%x\r\n" % size + body[:size] + b"\r\n"
            body = body[size:]
        data += b"0\r\n\r\n"
    return "\r\n".join([*lines, "", ""]).encode() + data


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]
