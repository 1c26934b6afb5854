"""LwM2M object definition files: XML to `ObjectModel` (OMA LWM2M.xsd; REST spec 12).

The file comes from whoever may upload one. A document type is refused: without one expat expands
no entity and reads no other file.
"""

from typing import Any, Final
from xml.parsers import expat

from tbfast.errors import PeerError
from tbfast.model.lwm2m import ObjectModel, ResourceModel

MAX_DEPTH: Final = 16
MAX_RESOURCES: Final = 4_096
MAX_TEXT_CHARS: Final = 65_536  # of one element that we keep
_MAX_ID: Final = 65_535

_OBJECT: Final = ("LWM2M", "Object")
_ITEM: Final = (*_OBJECT, "Resources", "Item")
_OBJECT_FIELDS: Final = ("Name", "ObjectID", "ObjectVersion", "MultipleInstances", "Mandatory")
_ITEM_FIELDS: Final = ("Name", "Operations", "MultipleInstances", "Mandatory", "Type")
_KEPT: Final = frozenset(
    [(*_OBJECT, name) for name in _OBJECT_FIELDS] + [(*_ITEM, name) for name in _ITEM_FIELDS]
)


def parse_ddf(data: bytes) -> ObjectModel:
    """The object that a file defines; PeerError for anything that is no such file."""
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise PeerError(f"the object definition is no XML: {error}") from error
    except (ValueError, LookupError) as error:  # an encoding nobody knows
        raise PeerError(f"the object definition cannot be read: {error}") from error
    return reader.model()


class _Reader:
    """What has been read so far."""

    def __init__(self) -> None:
        self._path: tuple[str, ...] = ()
        self._text = ""
        self._object: dict[str, str] = {}
        self._item: dict[str, str] = {}
        self._resources: dict[int, ResourceModel] = {}
        self._objects = 0

    def doctype(self, *_declaration: Any) -> None:
        raise PeerError("the object definition has a document type; remove <!DOCTYPE ...>")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._path) >= MAX_DEPTH:
            raise PeerError(f"the object definition is deeper than {MAX_DEPTH} elements")
        self._path = (*self._path, name)
        self._text = ""
        if self._path == _ITEM:
            self._item = {"ID": attributes.get("ID", "")}
        elif self._path == _OBJECT:
            self._objects += 1
            if self._objects > 1:
                raise PeerError("the object definition should hold one object")

    def text(self, text: str) -> None:
        if self._path in _KEPT:
            self._text += text
            if len(self._text) > MAX_TEXT_CHARS:
                raise PeerError(f"<{self._path[-1]}> is longer than {MAX_TEXT_CHARS} characters")

    def end(self, name: str) -> None:
        parent = self._path[:-1]
        if self._path in _KEPT:
            (self._item if parent == _ITEM else self._object)[name] = self._text.strip()
        elif self._path == _ITEM:
            self._add(self._item)
        self._path = parent
        self._text = ""

    def _add(self, item: dict[str, str]) -> None:
        resource = ResourceModel(
            id=_number(item["ID"], "Item ID"),
            name=item.get("Name", ""),
            operations="".join(letter for letter in "RWE" if letter in item.get("Operations", "")),
            multiple=item.get("MultipleInstances") == "Multiple",
            mandatory=item.get("Mandatory") == "Mandatory",
            type=item.get("Type", ""),
        )
        if resource.id in self._resources:
            raise PeerError(f"the object definition has two resources {resource.id}")
        if len(self._resources) >= MAX_RESOURCES:
            raise PeerError(f"the object definition has more than {MAX_RESOURCES} resources")
        self._resources[resource.id] = resource

    def model(self) -> ObjectModel:
        """The object, once everything was read."""
        if not self._objects:
            raise PeerError("the object definition should be <LWM2M><Object>...")
        return ObjectModel(
            id=_number(self._object.get("ObjectID", ""), "ObjectID"),
            version=_version(self._object.get("ObjectVersion") or "1.0"),
            name=self._object.get("Name", ""),
            multiple=self._object.get("MultipleInstances") == "Multiple",
            mandatory=self._object.get("Mandatory") == "Mandatory",
            resources=tuple(self._resources[id] for id in sorted(self._resources)),
        )


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 5 or int(text) > _MAX_ID:
        raise PeerError(f"{what} should be a number from 0 to {_MAX_ID}")
    return int(text)


def _version(text: str) -> str:
    major, dot, minor = text.partition(".")
    digits = major + minor
    if not dot or not minor or not (digits.isascii() and digits.isdecimal()) or len(text) > 11:
        raise PeerError("ObjectVersion should be two numbers with a dot between")
    return text
