"""Encoders that are named as on the Hugging Face hub: hf:OWNER/NAME, converted when first used."""

import pathlib

from conversion import hub
from experiments.command.errors import UsageError
from experiments.runs.remarks import say_once

REVISION = "encoder_revision"  # in config.json and in results


def local(encoder: str) -> str:
    """The directory of an encoder of the hub; any other name as it is.

    Raises:
        UsageError: it begins with hf: and is no such name.
        ConversionError: it can neither be found nor fetched, or cannot be converted.
    """
    if not hub.is_hub_name(encoder):
        return encoder
    try:
        hub.cache_of(encoder)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return str(hub.converted(encoder, report=say_once))


def revision(encoder: str) -> dict[str, str]:
    """The commit of an encoder of the hub, by the name under which it is recorded; else nothing."""
    if not hub.is_hub_name(encoder):
        return {}
    found = hub.revision_of(pathlib.Path(local(encoder)))
    return {} if found is None else {REVISION: found}
