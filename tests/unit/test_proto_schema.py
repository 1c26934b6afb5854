"""Which .proto texts are accepted, what they become, and what is said of the others (spec 7.2)."""

import pytest

from tbfast import limits
from tbfast.codec.proto_model import Kind, SchemaError
from tbfast.codec.proto_schema import parse
from tbfast.codec.proto_table import attributes, rpc_request, rpc_response, telemetry

HEAD = 'syntax = "proto3";\n'


def test_the_root_is_the_last_top_level_message() -> None:
    schema = parse(
        HEAD
        + """
        package test.deep; // a comment
        /* another, over
           two lines */
        service Ignored { rpc Call(A) returns (A) { option x = "}"; } }
        enum Level { LOW = 0; HIGH = 0x10; BELOW = -1; }
        message A { string a = 1; }
        message B {
          enum Level { INNER = 0; }
          message A { int32 inner = 1; }
          A nearest = 3;
          .test.deep.A absolute = 2;
          Level level = 1;
          deep.Level outer = 4;
          repeated fixed32 some_numbers_1 = 5 [packed = false, json_name = "other"];
          oneof either { bool yes = 6; bytes no = 7; }
          map<string, A> by_name = 8;
          optional double maybe = 1000;
        };
        """
    )
    assert schema.root_message.name == "test.deep.B"
    fields = {field.name: field for field in schema.root_message.fields}
    assert list(fields) == [
        "level", "absolute", "nearest", "outer", "some_numbers_1", "yes", "no", "by_name", "maybe",
    ]  # fmt: skip
    types = {name: field.type for name, field in fields.items()}
    assert schema.messages[types["nearest"]].name == "test.deep.B.A"
    assert schema.messages[types["absolute"]].name == "test.deep.A"
    assert schema.enums[types["level"]].name == "test.deep.B.Level"
    assert schema.enums[types["outer"]].values == ((-1, "BELOW"), (0, "LOW"), (16, "HIGH"))
    assert fields["some_numbers_1"].json_name == "someNumbers1"
    assert (fields["yes"].oneof, fields["no"].oneof, fields["maybe"].oneof) == (1, 1, 0)
    assert fields["yes"].presence
    assert fields["maybe"].presence
    assert not fields["some_numbers_1"].presence
    entry = schema.messages[types["by_name"]]
    assert entry.entry
    assert [field.kind for field in entry.fields] == [Kind.STRING, Kind.MESSAGE]


MESSAGE = "message M { int32 a = 1; }"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, 'begin the schema with: syntax = "proto3";'),
        (MESSAGE, 1, 'begin the schema with: syntax = "proto3";'),
        ('syntax = "proto2";' + MESSAGE, 1, 'begin the schema with: syntax = "proto3";'),
        (HEAD, 0, "declare at least one"),
        (HEAD + "enum E { A = 0; }", 0, "declare at least one"),
        (HEAD + 'import "a.proto";' + MESSAGE, 2, "copy the messages into this schema"),
        (HEAD + 'import public "a.proto";' + MESSAGE, 2, "imports are not supported"),
        (HEAD + 'option java_package = "a";' + MESSAGE, 2, "remove this line"),
        (HEAD + "message M {\n option deprecated = true;\n}", 3, "remove this line"),
        (HEAD + "enum E {\n option allow_alias = true; A = 0; }", 3, "remove this line"),
        (HEAD + "message M { reserved 5; }", 2, "reserved is not supported"),
        (HEAD + "message M { extensions 5 to 9; }", 2, "extensions are not supported"),
        (HEAD + "extend M { int32 a = 1; }", 2, "extend is not supported"),
        (HEAD + "message M { required int32 a = 1; }", 2, "remove the word"),
        (HEAD + "message M { repeated group A = 1 { } }", 2, "groups are not supported"),
        (HEAD + "message M { int32 a = 1 [default = 5]; }", 2, "default value: remove it"),
        (HEAD + "message M {\n\n Unknown a = 1; }", 4, "Unknown is not declared"),
        (HEAD + "message M { int32 a = 0; }", 2, "use 1 to 536870911"),
        (HEAD + "message M { int32 a = 19500; }", 2, "without 19000 to 19999"),
        (HEAD + "message M { int32 a = 536870912; }", 2, "use 1 to 536870911"),
        (HEAD + "message M { int32 a = 1;\n int32 b = 1; }", 3, "a and b have number 1"),
        (HEAD + "message M { int32 a_b = 1;\n int32 aB = 2; }", 3, "are both aB in JSON"),
        (HEAD + MESSAGE + MESSAGE, 2, "M is declared twice"),
        (HEAD + "message M { int32 a = 1 }", 2, "expected ';'"),
        (HEAD + "message M { int32 a = 1;", 2, "the type of a field"),
        (HEAD + "message M { int32 = 1; }", 2, "the name of a field"),
        (HEAD + "message M { int32 a = x; }", 2, "the number of the field"),
        (HEAD + "message M { int32 a = 09; }", 2, "the number of the field"),
        (HEAD + "message M { int32 a = 1 [x = 2; }", 2, "']' is missing"),
        (HEAD + "message M { oneof o { } }", 2, "at least one field"),
        (HEAD + "message M { oneof o { repeated int32 a = 1; } }", 2, "cannot be repeated"),
        (HEAD + "message M { map<double, int32> a = 1; }", 2, "cannot be the key of a map"),
        (HEAD + "enum E { A = 1; } " + MESSAGE, 2, "the first value of E must be 0"),
        (HEAD + "enum E { } " + MESSAGE, 2, "add one with number 0"),
        (HEAD + "enum E { A = 0; A = 1; } " + MESSAGE, 2, "twice"),
        (HEAD + "enum E { A = 0; B = 4294967296; } " + MESSAGE, 2, "outside 32 bits"),
        (HEAD + "message M { int32 ä = 1; }", 2, "unexpected character"),
        (HEAD + '"text"', 2, "expected a message"),
        (HEAD + "package a; package b; " + MESSAGE, 2, "one package"),
        (HEAD + f"message {'M' * 300} {{ }}", 2, "longer than 255 characters"),
        ("x" * 70_000, 0, "longer than 65536 bytes"),
    ],
)
def test_refused_with_line_and_remedy(text: str, line: int, words: str) -> None:
    with pytest.raises(SchemaError) as caught:
        parse(text)
    assert words in str(caught.value)
    assert caught.value.line == line


def test_bounds_of_a_schema() -> None:
    deep = "message M { " * limits.PROTO_SCHEMA_DEPTH + "}" * limits.PROTO_SCHEMA_DEPTH
    assert len(parse(HEAD + deep).messages) == limits.PROTO_SCHEMA_DEPTH
    with pytest.raises(SchemaError, match="nested deeper than 16 levels"):
        parse(HEAD + "message M { " * 17 + "}" * 17)
    fields = [f"int32 f{i}={i};" for i in range(1, limits.PROTO_SCHEMA_FIELDS + 2)]
    assert len(parse(HEAD + f"message M {{{''.join(fields[:-1])}}}").root_message.fields) == 2_048
    with pytest.raises(SchemaError, match="more than 2048 fields"):
        parse(HEAD + f"message M {{{''.join(fields)}}}")


VALUES = "message V { int32 a = 1; } "


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("message T { }", "has no fields"),
        (VALUES + "message T { int64 ts = 1; V values = 2; }", "optional int64 ts"),
        (VALUES + "message T { optional int32 ts = 1; V values = 2; }", "optional int64 ts"),
        ("message T { optional int64 ts = 1; string values = 2; }", "must be a message"),
        (VALUES + "message T { optional int64 ts = 1; repeated V values = 2; }", "a message"),
    ],
)
def test_telemetry_roots_that_are_refused(body: str, words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        telemetry(HEAD + body)
    attributes(HEAD + body)  # attributes know no times


def test_telemetry_roots_with_other_fields_are_free() -> None:
    telemetry(HEAD + VALUES + "message T { int32 ts = 1; V values = 2; bool more = 3; }")
    telemetry(HEAD + VALUES + "message T { V values = 2; optional int64 ts = 1; }")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("string method = 1; int32 requestId = 2;", "method, requestId and params"),
        ("string method = 1; int32 requestId = 2; string params = 3; bool x = 4;", "must have"),
        ("string method = 1; int64 requestId = 2; string params = 3;", "declared as int32"),
        ("bytes method = 1; int32 requestId = 2; string params = 3;", "declared as string"),
        ("string method = 1; int32 requestId = 2; repeated string params = 3;", "repeated"),
    ],
)
def test_rpc_request_roots_that_are_refused(body: str, words: str) -> None:
    with pytest.raises(SchemaError, match=words):
        rpc_request(HEAD + f"message R {{ {body} }}")


def test_blank_rpc_schemas_are_the_default_ones() -> None:
    assert rpc_request("  ").schema.root_message.name == "rpc.RpcRequestMsg"
    assert rpc_response().table.print(b"\x0a\x02{}") == b'{"payload":"{}"}'
