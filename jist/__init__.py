"""Independent subnet training on masked images, in JAX.

`jist.models` has the encoders and the MLP, `jist.features` turns images into CLS vectors,
`jist.strategies` trains a network with n workers, `jist.trainer` is the loop around them, and
`jist.tasks` says what is trained for. `jist.results` reads what runs found.
"""

from jist.metrics import results
from jist.models import calibrate
from jist.store import versions

__all__ = ["__version__", "calibrate", "results"]

__version__ = versions("jist").get("jist", "unknown")  # of a checkout that is not installed
