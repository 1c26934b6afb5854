"""What happens when a name is taken: nameConflictPolicy of REST spec 3."""

import secrets
import string
from collections.abc import Callable, Iterator
from typing import Final, Literal

import msgspec

from tbfast import limits

_SUFFIX_CHARS: Final = 6
_ALPHABET: Final = string.ascii_letters + string.digits


class Naming(msgspec.Struct, frozen=True):
    """FAIL refuses a taken name; UNIQUIFY adds the separator and letters or a number to it."""

    policy: Literal["FAIL", "UNIQUIFY"] = "FAIL"
    separator: str = "_"
    strategy: Literal["RANDOM", "INCREMENTAL"] = "RANDOM"


FAIL: Final = Naming()


def free_names(name: str, naming: Naming, is_free: Callable[[str], bool]) -> Iterator[str]:
    """Names to save under, in order; a later one is wanted when another caller took the former.

    With FAIL the one name, free or not.
    """
    if naming.policy == "FAIL" or is_free(name):
        yield name
    if naming.policy == "FAIL":
        return
    for number in range(1, limits.REGISTRY_UNIQUE_NAMES + 1):
        candidate = f"{name}{naming.separator}{_suffix(naming, number)}"
        if is_free(candidate):
            yield candidate


def _suffix(naming: Naming, number: int) -> str:
    if naming.strategy == "INCREMENTAL":
        return str(number)
    return "".join(secrets.choice(_ALPHABET) for _ in range(_SUFFIX_CHARS))
