"""The example script that an exported directory holds: it needs no jist."""

# What differs between the formats: imports, and how the program is loaded and called.
_RUNTIMES = {
    "stablehlo": (
        "NumPy, JAX and flatbuffers",
        "from jax import export",
        'program = export.deserialize((here / "model.stablehlo").read_bytes()).call',
    ),
    "onnx": (
        "NumPy and ONNX Runtime",
        "import onnxruntime",
        "onnxruntime.set_default_logger_severity(3)  # errors\n"
        'session = onnxruntime.InferenceSession(here / "model.onnx")\n'
        "names = [given.name for given in session.get_inputs()]\n"
        "program = lambda *given: session.run(None, dict(zip(names, given)))[0]",
    ),
}
# How images become squares of S pixels, by the name of it in a preprocessing.
_RESIZED = {
    "crop": "cut to the central square and scaled to",
    "squash": "scaled to S × S whatever their proportions,",
    "pad": "scaled until the longer side is S, with 255 times the mean\non both sides of the rest;",
}
# What follows the description in every script: the program, and what it is given.
_OPENED = """import json, pathlib, sys
import numpy as np
{imports}

here = pathlib.Path(__file__).parent
config = json.loads((here / "config.json").read_text())
{load}
if len(sys.argv) < 2:
    sys.exit(__doc__)
x = np.load(sys.argv[1])
{moved}given = [x]
"""
# Images of an encoder whose first convolution pads (`Preprocessing.border`).
_MOVED = """border, side = config["preprocessing"]["border"], config["image_size"]
x = np.pad(x, [(0, 0), (border, 0), (border, 0), (0, 0)])[:, :side, :side]
"""
_SCRIPT = (
    '''"""Classes and probabilities, by {needs} alone.

    python predict.py x.npy [missing.npy]

x.npy: features f32 [N, D]; or images u8 [N, S, S, 3], {resized} S =
image_size of config.json, with its filter. missing.npy: which of their pixels are missing, bool
[N, S, S]; without it a random share of the patches is left out, as in training.
"""
'''
    + _OPENED
    + """if config["patches"]:  # only some of them are visible
    size, grid = config["patch_size"], config["image_size"] // config["patch_size"]
    if len(sys.argv) > 2:
        missing = {loaded}.reshape(len(x), grid, size, grid, size).mean((2, 4))
        seen = missing.reshape(len(x), -1) <= config["max_missing"]
    else:
        ranks = np.random.default_rng(0).random((len(x), grid**2)).argsort(1).argsort(1)
        seen = ranks < config["visible"]
    if not seen.any(1).all():
        sys.exit(f"image {{seen.any(1).argmin()}} (from 0): nothing of it is visible")
    most = config["most_visible"] or seen.sum(1).max()
    order = np.argsort(~seen, axis=1, kind="stable")[:, :most]
    given.append(np.where(np.take_along_axis(seen, order, 1), order, -1).astype(np.int32))
for row in np.asarray(program(*given)):
    print(config["classes"][row.argmax()], f"{{row.max():.4f}}", sep="\\t")
"""
)

_ROWS = (
    '''"""The likeliest classes or labels of vectors, by {needs} alone.

    python predict.py x.npz

x.npz: sparse rows [N, F] of `scipy.sparse.save_npz`; or x.npy: features f32 [N, D].
"""
'''
    + _OPENED
    + """if config["sparse"]:  # every row is padded with the value 0
    lengths = np.diff(x["indptr"])
    held = np.arange(lengths.max()) < lengths[:, None]
    given = [np.zeros(held.shape, np.int32), np.zeros(held.shape, np.float32)]
    given[0][held], given[1][held] = x["indices"], x["data"]
names = config["classes"] or range(config["layers"][-1][1])
for row in np.asarray(program(*given)):
    best = np.argsort(-row, kind="stable")[:5]
    print(*(f"{{names[i]}}\\t{{row[i]:.4f}}" for i in best), sep="\\t")
"""
)


def rows_script() -> str:
    """The text of `predict.py`, of an export as `stablehlo` that takes rows or ranks labels."""
    needs, imports, load = _RUNTIMES["stablehlo"]
    return _ROWS.format(needs=needs, imports=imports, load=load, moved="")


def example_script(form: str, resized: str, border: int = 0) -> str:
    """The text of `predict.py`, of an export as `stablehlo` or `onnx` and resized images.

    Args:
        form: of the export.
        resized: how images become squares.
        border: as of `jist.models.Preprocessing`.
    """
    needs, imports, load = _RUNTIMES[form]
    loaded = "np.load(sys.argv[2])"
    if border:
        edges = "[(0, 0), (border, 0), (border, 0)]"
        loaded = f"np.pad({loaded}, {edges})[:, :side, :side]"
    how = {"moved": _MOVED if border else "", "loaded": loaded, "resized": _RESIZED[resized]}
    return _SCRIPT.format(needs=needs, imports=imports, load=load, **how)
