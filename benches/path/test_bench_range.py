"""A day of one series at 1 Hz, from sealed chunks to the JSON that REST answers."""

import pytest

from tbfast._ext.stringify import stringified
from tbfast.model.ranges import RangeQuery
from tbfast.store.answer import Answer
