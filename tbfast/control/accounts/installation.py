"""What an installation makes up for itself: the key its tokens are signed with."""

import secrets
from typing import Final

from tbfast.control.accounts.tokens import KEY_BYTES
from tbfast.store.registry import RegistryStore, Write

_SIGNING_KEY: Final = "signing-key"


async def signing_key(store: RegistryStore) -> bytes:
    """Random, made at the first start, the same ever after."""
    entity = await store.get("node", _SIGNING_KEY)
    if entity is not None:
        return entity.value
    key = secrets.token_bytes(KEY_BYTES)
    await store.commit(Write(kind="node", id=_SIGNING_KEY, expected=0, value=key, change="node"))
    return key
