"""What a user says of a source, because its tensors do not show it."""

import dataclasses
from typing import Any

from conversion.errors import ConversionError


@dataclasses.dataclass(frozen=True)
class Overrides:
    """Settings of a source that the user gives, because its tensors do not show them.

    Attributes:
        heads: attention heads of the encoder.
        decoder_heads: attention heads of the decoder.
        layer_norm_eps: epsilon of every LayerNorm.
        mean: mean of each channel of the images, in [0, 1].
        std: their standard deviation, likewise.
        bands: names of the channels, where they are bands.
        scale: the values that become 0 and 1 before: a pair, or one for each channel in turn.
        resize: how images become squares, as of `jist.models.Preprocessing`.
        ground_resolution: of Scale-MAE: metres that a pixel of its images is wide; positions are
            made for it.
        wavelengths: of DOFA: of each channel, in micrometres; its patch embedding is made for them.
    """

    heads: int | None = None
    decoder_heads: int | None = None
    layer_norm_eps: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    bands: tuple[str, ...] | None = None
    scale: tuple[float, ...] | None = None
    resize: str | None = None
    ground_resolution: float | None = None
    wavelengths: tuple[float, ...] | None = None


def valid(kind: type, **values: Any) -> Any:
    """An object of a kind, whose own refusal of the values becomes one of the conversion.

    Raises:
        ConversionError: the values are refused.
    """
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ConversionError(str(error)) from None
