"""Conditions of entity queries on the text of a value (REST spec 11)."""

import math
import operator
from typing import Final

from tbfast import limits
from tbfast.errors import PeerError
from tbfast.model.entity_query import (
    BooleanPredicate,
    ComplexPredicate,
    NumericPredicate,
    Predicate,
    StringPredicate,
)

_COMPARISONS: Final = {
    "EQUAL": operator.eq,
    "NOT_EQUAL": operator.ne,
    "GREATER": operator.gt,
    "LESS": operator.lt,
    "GREATER_OR_EQUAL": operator.ge,
    "LESS_OR_EQUAL": operator.le,
}


def number_of(text: str | None) -> float | None:
    """The number a value is; None for what is none."""
    if text is None or len(text) > limits.REST_NUMBER_CHARS or "_" in text:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def holds(predicate: Predicate, text: str | None) -> bool:
    """Whether a value fulfils a condition; ``text`` None: there is no value.

    A missing value is an empty text and no number. Raises PeerError for an operand of a wrong
    type.
    """
    match predicate:
        case NumericPredicate(operation, value):
            number = number_of(text)
            wanted = value.value
            if isinstance(wanted, bool) or not isinstance(wanted, int | float):
                raise PeerError("the value of a NUMERIC predicate should be a number")
            return number is not None and bool(_COMPARISONS[operation](number, wanted))
        case BooleanPredicate(operation, value):
            if not isinstance(value.value, bool):
                raise PeerError("the value of a BOOLEAN predicate should be true or false")
            same = text == ("true" if value.value else "false")
            return text in ("true", "false") and same is (operation == "EQUAL")
        case StringPredicate():
            return _text_holds(predicate, text or "")
        case ComplexPredicate(operation, predicates):
            combine = all if operation == "AND" else any
            return combine(holds(part, text) for part in predicates)


def _text_holds(predicate: StringPredicate, text: str) -> bool:
    given = predicate.value.value
    if not isinstance(given, str):
        raise PeerError("the value of a STRING predicate should be a text")
    wanted: str = given
    if predicate.ignore_case:
        text, wanted = text.casefold(), wanted.casefold()
    match predicate.operation:
        case "EQUAL":
            return text == wanted
        case "NOT_EQUAL":
            return text != wanted
        case "STARTS_WITH":
            return text.startswith(wanted)
        case "ENDS_WITH":
            return text.endswith(wanted)
        case "CONTAINS":
            return wanted in text
        case "NOT_CONTAINS":
            return wanted not in text
        case "IN":
            return text in [word.strip() for word in wanted.split(",")]
        case "NOT_IN":
            return text not in [word.strip() for word in wanted.split(",")]


def name_matches(wanted: str, name: str) -> bool:
    """Whether a name begins with a text, in any case; ``%`` stands for any characters."""
    first, *others = wanted.casefold().split("%")
    name = name.casefold()
    if not name.startswith(first):
        return False
    position = len(first)
    for part in others:
        position = name.find(part, position)
        if position < 0:
            return False
        position += len(part)
    return True
