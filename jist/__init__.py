"""Independent subnet training on masked images, in JAX."""

from jist.models import calibrate as calibrate
