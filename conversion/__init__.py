"""Converts PyTorch and Hugging Face weights to jist and back, and verifies that outputs agree.

`python -m conversion SRC DST` writes a directory that `jist.models.load_encoder` reads (or
`load_mae` and `load_resnet`); `python -m conversion DST OUT --to huggingface` converts back.
`names` and `resnet_names` map tensor names for both directions.
"""

VERSION = "1"
