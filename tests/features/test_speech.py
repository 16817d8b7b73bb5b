import wave

import numpy as np
import pytest

from jist import features
from jist.data.speech import UnreadableClipError, load_speech, log_mel


def make(root, count):
    rng = np.random.default_rng(0)
    for number in range(count):
        path = root / ("no", "yes")[number % 2] / f"{number:08x}_nohash_0.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(rng.integers(-999, 999, 400).astype("<i2").tobytes())
    return load_speech(root, "train")


def test_features_are_stored_in_the_order_of_the_clips(tmp_path):
    clips = make(tmp_path / "clips", 12)
    found = features.extract_speech(clips, tmp_path / "f")
    expected = np.stack([log_mel(clips.read(row)).ravel() for row in range(len(clips))])
    np.testing.assert_allclose(found.cls, expected, atol=1e-4)
    np.testing.assert_array_equal(found.label, clips.labels)
    np.testing.assert_array_equal(found.example_id, clips.example_ids)
    assert found.attributes["class_names"] == ["no", "yes"]


def test_an_interrupted_extraction_goes_on_at_its_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr(features.speech, "CHUNK", 4)
    monkeypatch.setattr(features.stored, "CHUNK", 4)
    clips = make(tmp_path / "clips", 12)
    last = tmp_path / "clips" / clips.keys[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[:-3])
    with pytest.raises(UnreadableClipError, match=f"{last.name}: cut short"):
        features.extract_speech(clips, tmp_path / "f")
    with pytest.raises(FileNotFoundError, match="not finished"):
        features.load(tmp_path / "f")
    last.write_bytes(whole)
    # The first chunk is there: its clips are read no more.
    for key in clips.keys[:4]:
        (tmp_path / "clips" / key).unlink()
    found = features.extract_speech(clips, tmp_path / "f")
    assert found.cls.shape == (len(clips), 4096)
    np.testing.assert_allclose(
        found.cls[-1], log_mel(clips.read(len(clips) - 1)).ravel(), atol=1e-4
    )
