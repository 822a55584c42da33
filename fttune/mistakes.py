"""A file held against its model: the first mistake in one line, with the nearest right key."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fttune.errors import ConfigError, unknown

_File = TypeVar("_File", bound=BaseModel)


def checked(model: type[_File], tree: dict[str, Any], path: Path, kind: str) -> _File:
    """The model of a whole file, from its tree; ConfigError with one line for the first mistake."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error.errors()[0], model, kind)}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _explain(error: ErrorDetails, whole: type[BaseModel], kind: str) -> str:
    place = [step for step in error["loc"] if step not in ("float", "literal['auto']")]
    where = ".".join(map(str, place))
    if error["type"] == "extra_forbidden":
        parent = ".".join(map(str, place[:-1])) or f"the {kind}"
        return unknown(f"key in {parent}", str(place[-1]), _keys_at(whole, place[:-1]))
    if error["type"] == "missing":
        return f"{where}: this key is required"
    message = error["msg"].removeprefix("Value error, ")
    for theirs, ours in (("valid tuple", "list"), ("valid dictionary", "mapping of keys"), (" or instance of", ":")):
        message = message.replace(theirs, ours)
    # What stands under `notify` may hold a password.
    hidden = error["type"] == "value_error" or place[:1] == ["notify"]
    shown = "" if hidden else f", but got {error['input']!r:.200}"
    return f"{where}: {message[0].lower()}{message[1:]}{shown}" if where else message


def _keys_at(whole: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """The keys that a file allows at a place."""
    model: Any = whole
    for step in place:
        fields = getattr(model, "model_fields", None)
        # Where there are no fields it is a mapping of names to models.
        model = fields[step].annotation if fields else get_args(model)[1]
    return list(model.model_fields)
