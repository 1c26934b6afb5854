"""The part of JSON Schema that msgspec writes: values that fit, and whether a value does."""

from typing import Any

from hypothesis import strategies as st

Schema = dict[str, Any]

_INT64 = 1 << 63
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-_INT64, _INT64 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def resolved(schema: Schema, components: Schema) -> Schema:
    """The schema itself, where it is a reference to a component."""
    if "$ref" in schema:
        found: Schema = components[schema["$ref"].rpartition("/")[2]]
        return found
    return schema


def values(schema: Schema, components: Schema) -> st.SearchStrategy[Any]:
    """Values that fit a schema."""
    schema = resolved(schema, components)
    if "anyOf" in schema:
        return st.one_of(*(values(part, components) for part in schema["anyOf"]))
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            low, high = schema.get("minimum", -_INT64), schema.get("maximum", _INT64 - 1)
            return st.integers(low, high) | st.integers(low, min(high, low + 3))
        case "number":
            return st.floats(allow_nan=False, allow_infinity=False)
        case "string":
            return st.text(max_size=40)
        case "array":
            items = schema.get("items") or {}
            return st.lists(values(items, components), max_size=3)
        case "object":
            return _objects(schema, components)
    return anything


def _objects(schema: Schema, components: Schema) -> st.SearchStrategy[Any]:
    members = schema.get("properties", {})
    required = schema.get("required", [])
    parts = {name: values(part, components) for name, part in members.items()}
    if not parts:
        return st.dictionaries(st.text(max_size=8), anything, max_size=3)
    return st.fixed_dictionaries(
        {name: parts[name] for name in parts if name in required},
        optional={name: parts[name] for name in parts if name not in required},
    )


def misfit(value: Any, schema: Schema, components: Schema, where: str = "$") -> str | None:
    """Where a value does not fit its schema; None where it does."""
    schema = resolved(schema, components)
    if "anyOf" in schema:
        found = [misfit(value, part, components, where) for part in schema["anyOf"]]
        return None if None in found else f"{where}: {found}"
    if "enum" in schema:
        return None if value in schema["enum"] else f"{where}: {value!r}"
    kinds: dict[str, Any] = {
        "null": type(None), "boolean": bool, "integer": int, "number": (int, float),
        "string": str, "array": list, "object": dict,
    }  # fmt: skip
    kind = schema.get("type")
    if kind is None:
        return None
    if not isinstance(value, kinds[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return f"{where}: {value!r} is no {kind}"
    if kind == "array":
        items = schema.get("items") or {}
        parts = [misfit(v, items, components, f"{where}[{n}]") for n, v in enumerate(value)]
    elif kind == "object":
        members = schema.get("properties", {})
        missing = [name for name in schema.get("required", []) if name not in value]
        if missing:
            return f"{where}: without {missing}"
        parts = [
            misfit(value[name], part, components, f"{where}.{name}")
            for name, part in members.items()
            if name in value
        ]
    else:
        parts = []
    return next((part for part in parts if part is not None), None)
