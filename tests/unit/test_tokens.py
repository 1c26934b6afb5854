"""Tokens: what we signed is read back, everything else is refused (REST spec 2, RFC 8725)."""

import base64
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbfast import limits
from tbfast.control.accounts.tokens import BadToken, Claims, Signer

NOW = 1_760_000_000
KEY = bytes(range(64))
CLAIMS = Claims(
    sub="a@b.c", user_id="u", scopes=("TENANT_ADMIN",), session_id="s", iss="thingsboard.io",
    iat=NOW, exp=NOW + 10, generation=3, first_name="Ä", enabled=True, is_public=False,
)  # fmt: skip


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def made(header: object, claims: object, key: bytes = KEY, digest=hashlib.sha512) -> str:
    """A token as any JWT library writes it."""
    signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    return f"{signed}.{b64(hmac.new(key, signed.encode(), digest).digest())}"


def test_a_token_is_a_standard_hs512_jwt() -> None:
    header, payload, signature = Signer(KEY).sign(CLAIMS).split(".")
    assert base64.urlsafe_b64decode(header + "==") == b'{"alg":"HS512"}'
    expected = hmac.new(KEY, f"{header}.{payload}".encode(), hashlib.sha512).digest()
    assert signature == b64(expected)
    assert json.loads(base64.urlsafe_b64decode(payload + "==")) == {
        "sub": "a@b.c", "userId": "u", "scopes": ["TENANT_ADMIN"], "sessionId": "s",
        "iss": "thingsboard.io", "iat": NOW, "exp": NOW + 10, "generation": 3,
        "firstName": "Ä", "enabled": True, "isPublic": False,
    }  # fmt: skip


def test_read_back_until_it_expires() -> None:
    signer = Signer(KEY)
    token = signer.sign(CLAIMS)
    assert signer.claims(token, NOW + 9) == CLAIMS
    with pytest.raises(BadToken):
        signer.claims(token, NOW + 10)


def test_every_changed_character_is_noticed() -> None:
    signer = Signer(KEY)
    token = signer.sign(CLAIMS)
    for at in range(len(token)):
        changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        with pytest.raises(BadToken):
            signer.claims(changed, NOW)


CLAIMS_JSON = {
    "sub": "a@b.c", "userId": "u", "scopes": ["TENANT_ADMIN"], "iss": "x", "iat": NOW,
    "exp": NOW + 10,
}  # fmt: skip


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "Bearer",
        "Ä.Ä.Ä",
        "\ud800",
        "\0",
        made({"alg": "none"}, CLAIMS_JSON),
        made({"alg": "none"}, CLAIMS_JSON).rpartition(".")[0] + ".",
        made({"alg": "HS256"}, CLAIMS_JSON, digest=hashlib.sha256),
        made({"alg": "HS384"}, CLAIMS_JSON, digest=hashlib.sha384),
        made({"alg": "RS512"}, CLAIMS_JSON),
        made({"alg": "HS512", "typ": "JWT"}, CLAIMS_JSON),
        made({"alg": "HS512"}, CLAIMS_JSON, key=b""),
        made({"alg": "HS512"}, CLAIMS_JSON, key=KEY[::-1]),
        "x" * (limits.AUTH_TOKEN_BYTES + 1),
    ],
)
def test_foreign_tokens(token: str) -> None:
    with pytest.raises(BadToken):
        Signer(KEY).claims(token, NOW)


@pytest.mark.parametrize(
    "claims",
    [
        None, [], {}, {**CLAIMS_JSON, "exp": "never"}, {**CLAIMS_JSON, "exp": 1e300},
        {**CLAIMS_JSON, "scopes": []}, {**CLAIMS_JSON, "scopes": ["A", "B"]},
        {**CLAIMS_JSON, "userId": None},
    ],
)  # fmt: skip
def test_claims_of_another_version_with_our_key(claims: object) -> None:
    header = b64(b'{"alg":"HS512"}')
    signed = f"{header}.{b64(json.dumps(claims).encode())}"
    token = f"{signed}.{b64(hmac.new(KEY, signed.encode(), hashlib.sha512).digest())}"
    with pytest.raises(BadToken):
        Signer(KEY).claims(token, NOW)


@given(st.text())
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(BadToken):
        Signer(KEY).claims(text, NOW)


@given(st.text(), st.text(), st.integers(0, 1 << 40))
def test_round_trip(sub: str, session: str, generation: int) -> None:
    def carried(text: str) -> str:
        return text.encode("utf-8", "replace").decode()

    claims = Claims(
        sub=carried(sub)[:200], user_id="u", scopes=("X",), session_id=carried(session)[:200],
        iss="i", iat=NOW, exp=NOW + 1, generation=generation,
    )  # fmt: skip
    signer = Signer(KEY)
    assert signer.claims(signer.sign(claims), NOW) == claims
