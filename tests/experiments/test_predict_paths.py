"""Which files `experiments.predict` finds: those that data sets find."""

import pytest
from PIL import Image

from experiments.runs.given_files import image_paths
from jist.data import load_dataset


def test_one_walk_for_prediction_and_training(tmp_path, capsys):
    real = tmp_path / "real"
    for name in ("a.png", "deep/b.WEBP", ".ipynb_checkpoints/a-checkpoint.png", "c.mask.png"):
        (real / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(real / name)
    (real / "._a.png").write_bytes(b"AppleDouble")
    (real / "clip.mov").write_bytes(b"")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "sub").symlink_to(real)
    found = image_paths((tmp_path / "links", real / "a.png"))
    assert found == [tmp_path / "links/sub" / n for n in ("a.png", "deep/b.WEBP")] + [
        real / "a.png"
    ]
    keys = load_dataset(f"images:{tmp_path / 'links'}", "train").keys
    assert keys == ("sub/a.png", "sub/deep/b.WEBP")
    assert "1 files of other suffixes passed over (.mov: 1)" in capsys.readouterr().err
    with pytest.raises(ValueError, match="gone does not exist"):
        image_paths((tmp_path / "gone",))
