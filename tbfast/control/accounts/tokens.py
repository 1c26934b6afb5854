"""JSON Web Tokens signed with HMAC SHA-512, the only algorithm there is (REST spec 2; RFC 7519).

Time is an argument, in seconds. A token is three base64url texts: the one header we write, the
claims, and the signature over both; everything else is refused before its claims are looked at.
"""

import binascii
import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

import msgspec

from tbfast import limits
from tbfast.errors import PeerError

KEY_BYTES: Final = 64
ISSUER: Final = "thingsboard.io"
REFRESH_SCOPE: Final = "REFRESH_TOKEN"
ACTIVATION_SCOPE: Final = "ACTIVATION"


class BadToken(PeerError):
    """Not a token of this installation, or its time is over."""


class Claims(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """What a token says; ``generation`` is that of the user's password, our own claim."""

    sub: str
    user_id: str
    scopes: tuple[str]
    session_id: str = ""
    iss: str
    iat: int
    exp: int
    generation: int = 0
    jti: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    enabled: bool | None = None
    is_public: bool | None = None
    tenant_id: str | None = None
    customer_id: str | None = None


_HEADER: Final = urlsafe_b64encode(b'{"alg":"HS512"}').rstrip(b"=") + b"."
_decoder = msgspec.json.Decoder(Claims)
_encoder = msgspec.json.Encoder()


class Signer:
    """Makes and checks tokens with one key of KEY_BYTES."""

    def __init__(self, key: bytes) -> None:
        self._keyed = hmac.new(key, digestmod=hashlib.sha512)

    def sign(self, claims: Claims) -> str:
        """The token."""
        signed = _HEADER + urlsafe_b64encode(_encoder.encode(claims)).rstrip(b"=")
        return (signed + b"." + self._signature(signed)).decode()

    def claims(self, token: str, now_s: int) -> Claims:
        """What a valid token says; BadToken for every other text."""
        try:
            raw = token.encode("ascii")
        except UnicodeEncodeError as error:
            raise BadToken("not a token") from error
        signed, _, signature = raw.rpartition(b".")
        if len(raw) > limits.AUTH_TOKEN_BYTES or not signed.startswith(_HEADER):
            raise BadToken("not a token of this server")
        if not hmac.compare_digest(self._signature(signed), signature):
            raise BadToken("the signature is not ours")
        payload = signed[len(_HEADER) :]
        try:
            claims = _decoder.decode(urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadToken("claims of another version") from error
        if claims.exp <= now_s:
            raise BadToken("expired")
        return claims

    def _signature(self, signed: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(signed)
        return urlsafe_b64encode(keyed.digest()).rstrip(b"=")
