"""One battlefield for all hostile MQTT: its canaries see everything."""

from collections.abc import Iterator

import pytest

from tests.support.battlefield import Field
from tests.support.canaries import Canaries
from tests.support.server import Server


@pytest.fixture(scope="session")
def battlefield() -> Iterator[Field]:
    with Server() as server, Canaries(server) as canaries:
        yield Field(server, canaries)
        canaries.check_rows()


@pytest.fixture
def field(battlefield: Field) -> Iterator[Field]:
    """The battlefield; after the test nothing may have been disturbed."""
    battlefield.begin()
    yield battlefield
    battlefield.canaries.check()
