import numpy as np
import pytest

from jist.data import DataError
from jist.data.speech import load_speech, speech_splits

SPEAKERS = [f"{number:08x}" for number in range(300)]


def make(root, *keys):
    for key in keys:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).touch()
    return root


@pytest.fixture
def words(tmp_path):
    """The 12-class layout, with two words, silence and unknown words."""
    keys = [f"{word}/{speaker}_nohash_0.wav" for speaker in SPEAKERS for word in ("no", "yes")]
    keys += [f"_unknown_/bed_{speaker}_nohash_1.wav.wav" for speaker in SPEAKERS]
    keys += [f"_silence_/{number}.wav" for number in range(200)]
    return make(tmp_path, *keys, "_background_noise_/rain.wav", ".git/a.wav", "no/README")


def speakers(clips):
    names = [key.split("/")[1] for key in clips.keys if not key.startswith("_silence_")]
    return {name.split("_nohash_")[0].split("_")[-1] for name in names}


def test_no_speaker_is_on_both_sides_and_a_fifth_is_for_testing(words):
    train, test = load_speech(words, "train"), load_speech(words, "test")
    assert train.class_names == test.class_names == ("_silence_", "_unknown_", "no", "yes")
    assert len(train) + len(test) == 3 * 300 + 200
    assert speakers(train) | speakers(test) == set(SPEAKERS)
    assert not speakers(train) & speakers(test)
    assert 0.15 < len(speakers(test)) / 300 < 0.25
    assert 0.1 < np.mean(test.labels[test.labels == 0].size / 200) < 0.3
    for clips in (train, test):
        for key, label in zip(clips.keys, clips.labels, strict=True):
            assert key.split("/")[0] == clips.class_names[label]
        assert len(set(clips.example_ids.tolist())) == len(clips)


def test_further_clips_move_no_other(words):
    before = set(load_speech(words, "test").keys)
    make(words, "no/abcdef01_nohash_0.wav", "left/abcdef01_nohash_0.flac")
    assert before == {key for key in load_speech(words, "test").keys if "abcdef01" not in key}


def test_the_published_lists_decide(tmp_path):
    keys = [f"{word}/{speaker}_nohash_0.wav" for word in ("no", "yes") for speaker in "abc"]
    make(tmp_path, *keys)
    # `bed` is a word that is not there.
    (tmp_path / "testing_list.txt").write_text(
        "no/a_nohash_0.wav\nyes/a_nohash_0.wav\nbed/a_nohash_0.wav\n"
    )
    assert speech_splits(tmp_path) == ("train", "test")
    (tmp_path / "validation_list.txt").write_text("no/b_nohash_0.wav\nyes/b_nohash_0.wav\n\n")
    assert speech_splits(tmp_path) == ("train", "validation", "test")
    found = {split: load_speech(tmp_path, split) for split in ("train", "validation", "test")}
    assert found["test"].keys == ("no/a_nohash_0.wav", "yes/a_nohash_0.wav")
    assert found["validation"].keys == ("no/b_nohash_0.wav", "yes/b_nohash_0.wav")
    assert found["train"].keys == ("no/c_nohash_0.wav", "yes/c_nohash_0.wav")
    assert found["train"].labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"testing": "no/a_nohash_0.wav\nno/z_nohash_0.wav"}, r"testing_list.txt, line 2: 'no/z"),
        ({"testing": "nonsense"}, r"line 1: 'nonsense' is no clip"),
        ({"testing": "no/a_nohash_0.wav"}, "speaker a is in two splits"),
        ({"validation": ""}, r"validation_list.txt but not testing_list.txt"),
        ({"testing": "\n"}, "no clip is in the split 'test'"),
        (
            {"testing": "no/b_nohash_0.wav", "validation": "no/b_nohash_0.wav"},
            r"testing_list.txt, line 1: .* is in validation_list.txt, too",
        ),
    ],
)
def test_lists_that_do_not_fit_are_named(tmp_path, lists, message):
    make(tmp_path, "no/a_nohash_0.wav", "no/b_nohash_0.wav", "yes/a_nohash_0.wav")
    for name, text in lists.items():
        (tmp_path / f"{name}_list.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        load_speech(tmp_path, "test")


def test_bad_folders_and_arguments_are_named(tmp_path, words):
    with pytest.raises(ValueError, match="speech:PATH needs the path of a directory"):
        load_speech(tmp_path / "gone", "train")
    with pytest.raises(ValueError, match="split must be one of train, validation, test"):
        load_speech(words, "val")
    with pytest.raises(ValueError, match=r"needs .*validation_list.txt"):
        load_speech(words, "validation")
    with pytest.raises(ValueError, match=r"test_share must lie in \(0, 1\), got 1"):
        load_speech(words, "train", test_share=1.0)
    make(words, "no/hello.wav")
    with pytest.raises(DataError, match=r"no/hello\.wav shows no speaker"):
        load_speech(words, "train")
    make(tmp_path / "empty", "up/notes.txt")
    with pytest.raises(DataError, match=r"up holds no clip; looked for files ending in .*\.wav"):
        load_speech(tmp_path / "empty", "train")
    with pytest.raises(DataError, match="holds no directory"):
        load_speech(tmp_path / "empty" / "up", "train")
    (tmp_path / "empty" / "down").symlink_to("up")
    with pytest.raises(DataError, match="down and .*up are one directory, by a symbolic link"):
        load_speech(tmp_path / "empty", "train")
