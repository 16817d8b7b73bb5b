"""PyTorch and Hugging Face weights in, jist weights out, and the proof that they agree.

`python -m conversion SRC DST` writes a directory that `jist.models.load_encoder` reads (or
`load_mae` and `load_resnet`); `python -m conversion DST OUT --to huggingface` goes the way back.
What a name of a source means is said once, in `names` and `resnet_names`, for both ways.
"""

VERSION = "1"
