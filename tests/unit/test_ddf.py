"""LwM2M object definition files (REST spec 12)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbfast.codec import ddf
from tbfast.codec.ddf import parse_ddf
from tbfast.errors import PeerError
from tbfast.model.lwm2m import ObjectModel, ResourceModel
from tests.support.ddf import DEVICE, definition, item


def test_an_object() -> None:
    assert parse_ddf(DEVICE) == ObjectModel(
        id=3,
        version="1.2",
        name="Device",
        multiple=False,
        mandatory=True,
        resources=(
            ResourceModel(id=4, name="Reboot", operations="E", mandatory=True),
            ResourceModel(
                id=9, name="Battery Level & more", operations="RW", multiple=True, type="Integer"
            ),
        ),
    )
    assert parse_ddf(DEVICE).key == "3_1.2"


def test_the_first_version_may_be_left_out() -> None:
    assert parse_ddf(definition(5, version="")).key == "5_1.0"


BOMB = b"""<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]>
<LWM2M><Object><Name>&b;</Name><ObjectID>3</ObjectID></Object></LWM2M>"""
FILE = b"""<!DOCTYPE l [<!ENTITY f SYSTEM "file:///etc/passwd">]><LWM2M><Object><Name>&f;</Name>
<ObjectID>3</ObjectID></Object></LWM2M>"""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (BOMB, "document type"),
        (FILE, "document type"),
        (b"<!DOCTYPE LWM2M><LWM2M/>", "document type"),
        (b"", "no XML"),
        (b"\x00\x01", "no XML"),
        (b"<LWM2M>", "no XML"),
        (b"<LWM2M>&undefined;</LWM2M>", "no XML"),
        (b'<?xml version="1.0" encoding="nonsense"?><LWM2M/>', "no XML|cannot be read"),
        (b"<LWM2M></LWM2M>", "should be"),
        (b"<Other><Object/></Other>", "should be"),
        (b"<LWM2M><Object/></LWM2M>", "ObjectID"),
        (b"<LWM2M><Object/><Object/></LWM2M>", "one object"),
        (definition(65_536), "ObjectID"),
        (definition(3, version="1"), "ObjectVersion"),
        (definition(3, version="1.x"), "ObjectVersion"),
        (definition(3, item(1), item(1)), "two resources"),
        (definition(3, item("x")), "Item ID"),
        (definition(3, *map(item, range(ddf.MAX_RESOURCES + 1))), "more than"),
        (b"<LWM2M>" * 17, "deeper"),
        (definition(3, name="x" * (ddf.MAX_TEXT_CHARS + 1)), "longer"),
    ],
)
def test_what_is_no_definition(data: bytes, words: str) -> None:
    with pytest.raises(PeerError, match=words):
        parse_ddf(data)


@given(
    st.binary(max_size=200) | st.text(alphabet='<>/&;!LWM2Object"= ', max_size=200).map(str.encode)
)
def test_anything_else_is_an_error_of_its_writer(data: bytes) -> None:
    with pytest.raises(PeerError):
        parse_ddf(data)


@given(st.integers(0, len(DEVICE) - 1), st.binary(min_size=1, max_size=1))
def test_a_changed_byte(position: int, byte: bytes) -> None:
    data = DEVICE[:position] + byte + DEVICE[position + 1 :]
    try:
        model = parse_ddf(data)
    except PeerError:
        return
    assert 0 <= model.id <= 65_535
