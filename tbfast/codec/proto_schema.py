"""Schemas that users write: .proto text to resolved types (MQTT spec 7.2).

The dialect is what ThingsBoard accepts: proto3 with messages, enums, `optional`, `repeated`,
`oneof`, and maps; no options of files, messages or enums, no imports, extensions, groups or
reserved ranges.  Options of fields are read over.
"""

from typing import Final

from tbfast import limits
from tbfast.codec.proto_lex import Token, tokens
from tbfast.codec.proto_model import (
    SCALARS,
    Enumeration,
    Field,
    Kind,
    Message,
    Schema,
    SchemaError,
)

_MAX_NUMBER: Final = (1 << 29) - 1
_PRIVATE_NUMBERS: Final = range(19_000, 20_000)  # of the Protobuf implementation itself
_MAP_KEYS: Final = frozenset(SCALARS) - {"double", "float", "bytes"}
_REFUSED: Final = {
    "import": "imports are not supported: copy the messages into this schema",
    "option": "options are not supported: remove this line",
    "extend": "extend is not supported: add the fields to the message itself",
    "extensions": "extensions are not supported: remove this line",
    "reserved": "reserved is not supported: remove this line",
    "group": "groups are not supported: declare a message and use it as the type",
    "required": "required is not supported: remove the word",
}


def parse(text: str) -> Schema:
    """Types of the file; the root is its last top-level message.  SchemaError if refused."""
    return _Parser(text).file()


class _Open:
    """A message while its body is read."""

    def __init__(self, scope: str, line: int) -> None:
        self.scope, self.line = scope, line
        self.fields: list[tuple[Field, str, int]] = []  # with the name of its type, and its line
        self.oneofs = 0
        self.entry = False


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = tokens(text)
        self._token = next(self._tokens)
        self._package = ""
        self._messages: list[_Open] = []
        self._enums: list[Enumeration] = []
        self._names: dict[str, tuple[Kind, int]] = {}
        self._field_count = 0

    # --- tokens ------------------------------------------------------------------------------

    def _take(self) -> Token:
        taken = self._token
        if taken.kind != "end":
            self._token = next(self._tokens)
        return taken

    def _accept(self, text: str) -> bool:
        if self._token.text == text and self._token.kind != "text":
            self._take()
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            raise self._error(f"expected {text!r} here, not {self._token.text[:40]!r}")

    def _name(self, what: str) -> str:
        if self._token.kind != "name":
            raise self._error(f"expected {what} here, not {self._token.text[:40]!r}")
        name = self._take().text
        if len(name) > limits.PROTO_NAME_CHARS:
            raise self._error(f"{what} is longer than {limits.PROTO_NAME_CHARS} characters")
        return name

    def _path(self, what: str) -> str:
        path = "." if self._accept(".") else ""
        path += self._name(what)
        while self._accept("."):
            path += "." + self._name(what)
        return path

    def _integer(self, what: str) -> int:
        sign = -1 if self._accept("-") else 1
        token = self._token
        base = 16 if token.text[:2] in ("0x", "0X") else 8 if token.text[:1] == "0" else 10
        try:
            value = sign * int(self._take().text, base) if token.kind == "number" else None
        except ValueError:
            value = None
        if value is None or len(token.text) > 20:
            raise SchemaError(f"expected the number of {what} here", line=token.line)
        return value

    def _error(self, message: str) -> SchemaError:
        return SchemaError(message, line=self._token.line)

    def _refuse_unsupported(self) -> None:
        if self._token.kind == "name" and self._token.text in _REFUSED:
            raise self._error(_REFUSED[self._token.text])

    # --- declarations ------------------------------------------------------------------------

    def file(self) -> Schema:
        self._syntax()
        root = -1
        while self._token.kind != "end":
            self._refuse_unsupported()
            if self._accept("package"):
                if self._package or self._names:
                    raise self._error("declare one package, before every message")
                self._package = self._path("a package name")
                self._expect(";")
            elif self._accept("message"):
                root = self._message(self._package, 1)
            elif self._accept("enum"):
                self._enum(self._package)
            elif self._accept("service"):
                self._name("a service name")
                self._skip("{", "}")
            elif not self._accept(";"):
                raise self._error(f"expected a message, not {self._token.text[:40]!r}")
        if root < 0:
            raise SchemaError("the schema has no message: declare at least one")
        messages = tuple(self._resolved(message) for message in self._messages)
        return Schema(messages=messages, enums=tuple(self._enums), root=root)

    def _syntax(self) -> None:
        wanted = 'begin the schema with: syntax = "proto3";'
        if not self._accept("syntax"):
            raise self._error(wanted)
        self._expect("=")
        if self._take().text[1:-1] != "proto3":
            raise self._error(wanted)
        self._expect(";")

    def _declare(self, scope: str, kind: Kind, index: int) -> str:
        name = self._name("a name")
        full = f"{scope}.{name}" if scope else name
        if full in self._names:
            raise self._error(f"{full} is declared twice: rename one of them")
        self._names[full] = (kind, index)
        return full

    def _message(self, scope: str, depth: int) -> int:
        if depth > limits.PROTO_SCHEMA_DEPTH:
            raise self._error(f"messages are nested deeper than {limits.PROTO_SCHEMA_DEPTH} levels")
        index, line = len(self._messages), self._token.line
        message = _Open(self._declare(scope, Kind.MESSAGE, index), line)
        self._messages.append(message)
        self._expect("{")
        while not self._accept("}"):
            self._refuse_unsupported()
            if self._accept("message"):
                self._message(message.scope, depth + 1)
            elif self._accept("enum"):
                self._enum(message.scope)
            elif self._accept("oneof"):
                self._oneof(message)
            elif self._accept("map"):
                self._map(message)
            elif not self._accept(";"):
                repeated = self._accept("repeated")
                presence = not repeated and self._accept("optional")
                self._field(message, repeated=repeated, presence=presence)
        return index

    def _oneof(self, message: _Open) -> None:
        self._name("the name of the oneof")
        self._expect("{")
        message.oneofs += 1
        before = len(message.fields)
        while not self._accept("}"):
            self._refuse_unsupported()
            if self._token.text in ("repeated", "optional", "map"):
                raise self._error(f"a field of a oneof cannot be {self._token.text}")
            self._field(message, presence=True, oneof=message.oneofs)
        if len(message.fields) == before:
            raise self._error("a oneof needs at least one field")

    def _field(
        self, message: _Open, *, repeated: bool = False, presence: bool = False, oneof: int = 0
    ) -> None:
        self._refuse_unsupported()
        type_name = self._path("the type of a field")
        self._add(message, type_name, repeated=repeated, presence=presence, oneof=oneof)

    def _map(self, message: _Open) -> None:
        self._expect("<")
        line, key = self._token.line, self._name("the key type")
        if key not in _MAP_KEYS:
            raise SchemaError(
                f"{key} cannot be the key of a map: use string or an integer", line=line
            )
        self._expect(",")
        value = self._path("the value type")
        self._expect(">")
        entry = _Open(f"{message.scope}.({len(self._messages)})", line)
        entry.entry = True
        fields = (("key", key, 1), ("value", value, 2))
        for name, type_name, number in fields:
            field = Field(name=name, number=number, kind=Kind.MESSAGE)
            entry.fields.append((field, type_name, line))
        self._names[entry.scope] = (Kind.MESSAGE, len(self._messages))
        self._messages.append(entry)
        self._add(message, "." + entry.scope, repeated=True)

    def _add(
        self,
        message: _Open,
        type_name: str,
        *,
        repeated: bool = False,
        presence: bool = False,
        oneof: int = 0,
    ) -> None:
        line = self._token.line
        name = self._name("the name of a field")
        self._expect("=")
        number = self._integer("the field")
        if not 1 <= number <= _MAX_NUMBER or number in _PRIVATE_NUMBERS:
            raise SchemaError(
                f"field {name} has number {number}: use 1 to {_MAX_NUMBER} without 19000 to 19999",
                line=line,
            )
        self._field_options(name)
        self._expect(";")
        self._field_count += 1
        if self._field_count > limits.PROTO_SCHEMA_FIELDS:
            raise self._error(f"the schema has more than {limits.PROTO_SCHEMA_FIELDS} fields")
        field = Field(
            name=name,
            number=number,
            kind=Kind.MESSAGE,
            repeated=repeated,
            presence=presence,
            oneof=oneof,
        )
        message.fields.append((field, type_name, line))

    def _field_options(self, name: str) -> None:
        if self._token.text != "[":
            return
        if any(token.text == "default" for token in self._skip("[", "]")):
            raise self._error(f"field {name} has a default value: remove it")

    def _skip(self, opening: str, closing: str) -> list[Token]:
        """What stands between a bracket and the one that closes it."""
        self._expect(opening)
        depth = 1
        skipped: list[Token] = []
        while True:
            token = self._take()
            if token.kind == "end":
                raise self._error(f"{closing!r} is missing")
            if token.kind == "mark":
                depth += (token.text == opening) - (token.text == closing)
            if depth == 0:
                return skipped
            skipped.append(token)

    def _enum(self, scope: str) -> None:
        line = self._token.line
        full = self._declare(scope, Kind.ENUM, len(self._enums))
        values: dict[int, str] = {}
        names: set[str] = set()
        self._expect("{")
        while not self._accept("}"):
            self._refuse_unsupported()
            if self._accept(";"):
                continue
            name = self._name("the name of a value")
            self._expect("=")
            number = self._integer(name)
            if not -(1 << 31) <= number < 1 << 31:
                raise self._error(f"the number of {name} is outside 32 bits")
            if number in values or name in names:
                raise self._error(f"{full} has {name} = {number} twice: change one of them")
            names.add(name)
            if not values and number != 0:
                raise self._error(f"the first value of {full} must be 0")
            if self._token.text == "[":
                self._skip("[", "]")
            self._expect(";")
            self._field_count += 1
            if self._field_count > limits.PROTO_SCHEMA_FIELDS:
                raise self._error(f"the schema has more than {limits.PROTO_SCHEMA_FIELDS} fields")
            values[number] = name
        if not values:
            raise SchemaError(f"{full} has no values: add one with number 0", line=line)
        self._enums.append(Enumeration(name=full, values=tuple(sorted(values.items()))))

    # --- names of types ----------------------------------------------------------------------

    def _resolved(self, message: _Open) -> Message:
        names: dict[str, str] = {}
        numbers: dict[int, str] = {}
        fields = []
        for field, type_name, line in message.fields:
            if (other := numbers.setdefault(field.number, field.name)) != field.name:
                raise SchemaError(
                    f"{other} and {field.name} have number {field.number}: change one", line=line
                )
            if field.json_name in names:
                raise SchemaError(
                    f"{names[field.json_name]} and {field.name} are both {field.json_name} "
                    "in JSON: rename one",
                    line=line,
                )
            names[field.json_name] = field.name
            fields.append(self._typed(field, type_name, message.scope, line))
        fields.sort(key=lambda field: field.number)
        return Message(name=message.scope, fields=tuple(fields), entry=message.entry)

    def _typed(self, field: Field, type_name: str, scope: str, line: int) -> Field:
        kind, index = self._lookup(type_name, scope, line)
        return Field(
            name=field.name,
            number=field.number,
            kind=kind,
            type=index,
            repeated=field.repeated,
            presence=field.presence or (kind is Kind.MESSAGE and not field.repeated),
            oneof=field.oneof,
        )

    def _lookup(self, type_name: str, scope: str, line: int) -> tuple[Kind, int]:
        """From the innermost scope outwards, as protoc does; a leading dot is absolute."""
        if type_name in SCALARS:
            return SCALARS[type_name], 0
        if type_name.startswith("."):
            found = self._names.get(type_name[1:])
            scope = ""
        else:
            found = self._names.get(f"{scope}.{type_name}" if scope else type_name)
        while found is None and scope:
            scope = scope.rpartition(".")[0]
            found = self._names.get(f"{scope}.{type_name}" if scope else type_name)
        if found is None:
            raise SchemaError(
                f"type {type_name[:80]} is not declared: declare it in this schema", line=line
            )
        return found
