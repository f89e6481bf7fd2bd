"""Arguments of a transformer: from what a request says to its validated model, and to one canonical text.

Where arguments come from (a query, a view, a spec) is not known here.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import AliasChoices, BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic_core import ErrorDetails, to_jsonable_python

from transom.plugins.contract import Transformer
from transom.plugins.errors import ArgsError

_SHOWN_LENGTH = 60


def parse_args(
    transformer: Transformer, value: object | None, options: Mapping[str, str] | None = None, *, etl: str | None = None
) -> BaseModel:
    """Validate what was asked for against the transformer's schema.

    `value` is decoded JSON: None for the defaults, an object by argument name, anything else for the argument
    marked first. `options` are the strings of `NAME.option=value`. `etl` names the ETL in messages when its
    name isn't the transformer's. Raises ArgsError.
    """
    name = etl or transformer.name
    model = transformer.Args
    given = _by_name(name, model, value)
    options = options or {}
    for option in options:
        if option in given:
            raise ArgsError(name, "given twice, as an option and in the arguments", argument=option)
    _refuse_unknown(name, model, [*given, *options])
    try:
        return model.model_validate({**given, **options})
    except ValidationError as error:
        return _retry_structured(name, model, given, options, error)


def canonical(args: BaseModel) -> str:
    """Return the arguments as JSON that is the same for equal arguments, in every process."""
    return _dump(_plain(args.model_dump()))


def has_defaults(transformer: Transformer) -> bool:
    """Tell whether the transformer runs without any argument given."""
    try:
        transformer.Args()
    except ValidationError:
        return False
    return True


def schema(transformer: Transformer) -> dict[str, Any]:
    """Return the JSON schema of the transformer's arguments; the one a bare scalar sets has `"first": true`."""
    return transformer.Args.model_json_schema()


def allowed(model: type[BaseModel], argument: str) -> str:
    """Say in words what an argument may be, going by the schema; empty when that says nothing."""
    document = model.model_json_schema()
    return _in_words(document["properties"].get(argument, {}), document.get("$defs", {}))


def first_fields(model: type[BaseModel]) -> list[str]:
    """List the fields marked with `json_schema_extra={"first": True}`."""
    return [
        name
        for name, info in model.model_fields.items()
        if isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("first") is True
    ]


def _by_name(etl: str, model: type[BaseModel], value: object | None) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return {str(key): item for key, item in value.items()}
    first = first_fields(model)
    if not first:
        if not model.model_fields:
            raise ArgsError(etl, f"it takes no arguments, got {_shown(value)}")
        raise ArgsError(etl, f"it takes an object of {_names(model)}, not the bare value {_shown(value)}")
    return {_spellings(model, first[0])[0]: value}


def _spellings(model: type[BaseModel], field: str) -> list[str]:
    """List the names an argument may be given by, the one to show first."""
    alias = model.model_fields[field].validation_alias
    by_name = bool(model.model_config.get("populate_by_name") or model.model_config.get("validate_by_name"))
    if isinstance(alias, AliasChoices):
        aliases = [choice for choice in alias.choices if isinstance(choice, str)]
    else:
        aliases = [alias] if isinstance(alias, str) else []
    return [*aliases, field] if by_name or not aliases else aliases


def _accepted(model: type[BaseModel]) -> dict[str, str]:
    """Map every spelling of every argument to its field."""
    return {spelling: field for field in model.model_fields for spelling in _spellings(model, field)}


def _refuse_unknown(etl: str, model: type[BaseModel], given: list[str]) -> None:
    accepted = _accepted(model)
    if model.model_config.get("extra") == "allow":
        return
    for name in given:
        if name in accepted:
            continue
        if not accepted:
            raise ArgsError(etl, "it takes no arguments", argument=name[:_SHOWN_LENGTH])
        near = difflib.get_close_matches(name[:_SHOWN_LENGTH], accepted, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise ArgsError(
            etl, f"there is no such argument{hint}; it takes {_names(model)}", argument=name[:_SHOWN_LENGTH]
        )


def _retry_structured(
    etl: str, model: type[BaseModel], given: dict[str, Any], options: Mapping[str, str], error: ValidationError
) -> BaseModel:
    """Read failed options that look like JSON lists, objects or null as JSON, and validate once more."""
    decoded: dict[str, Any] = {}
    for detail in error.errors(include_url=False):
        option = str(detail["loc"][0]) if detail["loc"] else ""
        text = options.get(option, "").strip()
        if text.startswith(("[", "{")) or text == "null":
            try:
                decoded[option] = json.loads(text)
            except (ValueError, RecursionError):
                continue
    if decoded:
        try:
            return model.model_validate({**given, **options, **decoded})
        except ValidationError as again:
            error = again
    raise _explained(etl, model, error) from error


def _explained(etl: str, model: type[BaseModel], error: ValidationError) -> ArgsError:
    detail = error.errors(include_url=False)[0]
    argument = ".".join(str(step) for step in detail["loc"])
    reason = _reason(detail)
    field = _accepted(model).get(str(detail["loc"][0])) if detail["loc"] else None
    words = allowed(model, _spellings(model, field)[0]) if field else ""
    return ArgsError(etl, f"{reason}; allowed: {words}" if words else reason, argument=argument)


def _reason(detail: ErrorDetails) -> str:
    if detail["type"] == "missing":
        return "it is required"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message[:1].lower() + message[1:]
    if not detail["loc"]:
        return message
    return f"{message}, got {_shown(detail['input'])}"


def _in_words(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    if "$ref" in node:
        return _in_words(definitions[str(node["$ref"]).rpartition("/")[2]], definitions)
    if "const" in node:
        return json.dumps(node["const"])
    if "enum" in node:
        return "one of " + ", ".join(str(item) for item in node["enum"])
    if "anyOf" in node:
        return " or ".join(filter(None, (_in_words(each, definitions) for each in node["anyOf"])))
    kind = str(node.get("type", ""))
    return f"{kind} {_bounds(node)}".strip()


def _bounds(node: Mapping[str, Any]) -> str:
    wording = {
        "minimum": "from {}",
        "exclusiveMinimum": "above {}",
        "maximum": "to {}",
        "exclusiveMaximum": "below {}",
        "minLength": "of at least {} characters",
        "maxLength": "of at most {} characters",
        "minItems": "of at least {} items",
        "maxItems": "of at most {} items",
        "pattern": "matching {}",
    }
    if "minItems" in node and node["minItems"] == node.get("maxItems"):
        return f"of {node['minItems']} items"
    return " ".join(text.format(node[key]) for key, text in wording.items() if key in node)


def _names(model: type[BaseModel]) -> str:
    return ", ".join(_spellings(model, field)[0] for field in model.model_fields)


def _shown(value: object) -> str:
    """Render a value for a message, cut short."""
    text = repr(value)
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 1] + "…"


def _dump(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _plain(value: object) -> Any:
    """Turn a dumped model into JSON types, with nothing left to hash order or masked."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=_dump)
    return _plain_leaf(value)


def _plain_leaf(value: object) -> Any:
    if isinstance(value, SecretStr | SecretBytes):
        secret = value.get_secret_value()
        raw = secret.encode() if isinstance(secret, str) else secret
        return {"sha256": hashlib.sha256(raw).hexdigest()}  # pydantic's own dump is '**********' for every secret
    if isinstance(value, bytes | bytearray):
        return {"hex": bytes(value).hex()}
    return to_jsonable_python(value)


def _key(key: object) -> str:
    plain = to_jsonable_python(key)
    return plain if isinstance(plain, str) else json.dumps(plain)
