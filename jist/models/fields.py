"""From JSON to a dataclass: every field has its name and its type, or the message names it."""

import dataclasses
import types
import typing
from collections.abc import Collection
from typing import Any, TypeVar

Made = TypeVar("Made")


class FieldError(ValueError):
    """A field of a file is missing, unknown, or of another type than it must be."""


def of_json(
    kind: type[Made], given: Any, where: str, *, may_lack: Collection[str] | None = None
) -> Made:
    """A dataclass from what JSON holds of it; lists become tuples.

    Args:
        kind: the dataclass; its fields are numbers, text, booleans, tuples of those, or None.
        given: a JSON value.
        where: the file, and where in it, for the message.
        may_lack: fields that need not be there; by default all that the dataclass gives a value.

    Raises:
        FieldError: it is no object of these fields, or the dataclass refuses their values.

    >>> from jist.models import ViTConfig
    >>> of_json(ViTConfig, {"depth": "many"}, "config.json: encoder")
    Traceback (most recent call last):
    jist.models.fields.FieldError: config.json: encoder.depth must be int, got 'many'
    """
    if not isinstance(given, dict):
        raise FieldError(f"{where} must be a JSON object, got {shown(given)}")
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, kind))}
    unknown = [name for name in given if name not in fields]
    if unknown:
        raise FieldError(f"{where}.{unknown[0]} is no field of {kind.__name__}")
    for name, field in fields.items():
        free = field.default is not dataclasses.MISSING
        if name not in given and not (free if may_lack is None else name in may_lack):
            raise FieldError(f"{where}.{name} is missing")
    hints = typing.get_type_hints(kind)
    values = {name: _value(hints[name], of, f"{where}.{name}") for name, of in given.items()}
    try:
        return kind(**values)
    except FieldError:
        raise
    except ValueError as error:
        raise FieldError(f"{where}: {error}") from None


def shown(value: Any) -> str:
    """A JSON value in a message, in short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _value(hint: Any, given: Any, where: str) -> Any:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if given is None and type(None) in inside:
            return None
        return _value(next(of for of in inside if of is not type(None)), given, where)
    if origin is tuple:
        several = len(inside) == 2 and inside[1] is ...
        if not isinstance(given, list | tuple) or not (several or len(given) == len(inside)):
            many = "" if several else f" of {len(inside)}"
            raise FieldError(f"{where} must be a list{many}, got {shown(given)}")
        of = [inside[0]] * len(given) if several else inside
        return tuple(_value(one, item, where) for one, item in zip(of, given, strict=True))
    if dataclasses.is_dataclass(hint):
        return of_json(typing.cast(Any, hint), given, where)
    allowed = {float: (int, float), int: (int,), str: (str,), bool: (bool,)}.get(hint)
    if allowed is None:
        return given
    if not isinstance(given, allowed) or (isinstance(given, bool) and hint is not bool):
        raise FieldError(f"{where} must be {hint.__name__}, got {shown(given)}")
    return given
