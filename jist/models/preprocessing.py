"""Preprocessing: resizing and normalisation as in the training of an encoder."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
RESIZES = ("crop", "squash", "pad")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Resizing and normalisation of images; the defaults are ImageNet's, as in the published MAE.

    Attributes:
        mean: mean of each channel (red, green, blue; or every band), with pixels in [0, 1].
        std: standard deviation of each channel, likewise.
        interpolation: filter of resizing, one of "nearest", "bilinear", "bicubic", "lanczos".
        bands: names of the channels, where they are bands of a sensor.
        scale: of each band the stored values that become 0 and 255 before everything else; empty
            where pixels are bytes already.
        resize: how an image becomes a square: "crop" takes the central one, "squash" ignores the
            proportions, "pad" keeps the whole image and fills the rest with the mean.
        border: pixels of the mean above and to the left of an image of the encoder's size, which is
            moved by them and cut at the other sides; what the first patches see of an image in an
            encoder whose convolution pads (DOFA's, by one pixel).

    Raises:
        ValueError: an unknown interpolation or way of resizing, a deviation that is not positive, a
            border that is negative, more means than deviations, bands or scales, or the other way
            round.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bicubic"
    bands: tuple[str, ...] = ()
    scale: tuple[tuple[float, float], ...] = ()
    resize: str = "crop"
    border: int = 0

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation must be one of {INTERPOLATIONS}, got {self.interpolation!r}"
            )
        if self.resize not in RESIZES:
            raise ValueError(f"resize must be one of {RESIZES}, got {self.resize!r}")
        if self.border < 0:
            raise ValueError(f"border must not be negative, got {self.border}")
        if not all(deviation > 0 for deviation in self.std):  # nor NaN
            raise ValueError(f"std must be positive, got {self.std}")
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean and std must have as many channels, got {len(self.mean)} and {len(self.std)}"
            )
        for name in ("bands", "scale"):
            if len(getattr(self, name)) not in (0, len(self.mean)):
                raise ValueError(
                    f"{name} must have an entry for each of {len(self.mean)} channels, got "
                    f"{len(getattr(self, name))}"
                )

    def as_json(self) -> dict[str, Any]:
        """As `config.json` has it: of colour images that are cut, as before there was a choice."""
        usual = {"bands": (), "scale": (), "resize": "crop", "border": 0}
        found = dataclasses.asdict(self)
        return {name: of for name, of in found.items() if name not in usual or of != usual[name]}

    @property
    def fill(self) -> tuple[int, ...]:
        """The mean of each channel as a byte, which stands where an image has no pixel."""
        return tuple(round(255 * mean) for mean in self.mean)

    @classmethod
    def of(cls, channels: int, interpolation: str = "bicubic") -> "Preprocessing":
        """ImageNet's of three channels; of bands, whose mean nobody knows, pixels in [0, 1]."""
        if channels == 3:
            return cls(interpolation=interpolation)
        return cls((0.0,) * channels, (1.0,) * channels, interpolation)

    def normalize(
        self,
        images: UInt8[Array, "batch height width channels"]
        | Float[Array, "batch height width channels"],
    ) -> Float[Array, "batch height width channels"]:
        """(pixel / 255 - mean) / std, in float32, of pixels in [0, 255]; 0 in the border."""
        mean, std = jnp.asarray(self.mean), jnp.asarray(self.std)
        normalized = (images.astype(jnp.float32) / 255 - mean) / std
        if not self.border:
            return normalized
        # A byte can be half a step from the mean, and the padding of a convolution is exactly 0.
        return normalized.at[:, : self.border].set(0).at[:, :, : self.border].set(0)

    def colours(
        self, images: Float[Array, "batch height width channels"]
    ) -> Float[Array, "batch height width channels"]:
        """Normalised images as pixels in [0, 1], to which what lies outside is clipped."""
        return jnp.clip(images * jnp.asarray(self.std) + jnp.asarray(self.mean), 0, 1)
