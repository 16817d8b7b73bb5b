import builtins
import struct
import wave

import numpy as np
import pytest

from jist.data.speech import RATE, SAMPLES, UnreadableClipError, read_clip


def tone(samples=SAMPLES, rate=RATE):
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(samples) / rate)


def write(path, values, *, rate=RATE, width=2):
    """Writes numbers in [-1, 1), [samples] or [samples, channels], as integers of `width` bytes."""
    values = np.asarray(values)
    integers = np.round(values * 2 ** (8 * width - 1)).astype(np.int64) + 128 * (width == 1)
    data = b"".join(int(v).to_bytes(width, "little", signed=width > 1) for v in integers.flat)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if values.ndim == 1 else values.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(data)
    return path


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_width_gives_the_same_waveform(tmp_path, width):
    found = read_clip(write(tmp_path / "a.wav", tone(), width=width))
    assert (found.shape, found.dtype) == ((SAMPLES,), np.float32)
    np.testing.assert_allclose(found, tone(), atol=2.0 ** -(8 * width - 1) + 1e-7)


def riff(encoding, bits, data, *, channels=1, extensible=False):
    """A WAV file as other programs write it, with a chunk of odd length before the samples."""
    block = channels * bits // 8
    tag = 0xFFFE if extensible else encoding
    header = struct.pack("<HHIIHH", tag, channels, RATE, RATE * block, block, bits)
    if extensible:
        kind = bytes.fromhex("000000001000800000aa00389b71")
        header += struct.pack("<HHIH", 22, bits, 4, encoding) + kind
    chunks = [(b"fmt ", header), (b"LIST", b"odd"), (b"data", data)]
    body = b"".join(
        name + struct.pack("<I", len(of)) + of + bytes(len(of) % 2) for name, of in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("channels", [1, 2])
def test_floating_point_and_extensible_headers_are_read(tmp_path, extensible, channels):
    values = np.repeat(tone()[:, None], channels, axis=1)
    for bits in (32, 64):
        data = riff(
            3,
            bits,
            values.astype(f"<f{bits // 8}").tobytes(),
            channels=channels,
            extensible=extensible,
        )
        (tmp_path / "float.wav").write_bytes(data)
        np.testing.assert_allclose(read_clip(tmp_path / "float.wav"), tone(), atol=1e-7)
    for width in (1, 2, 3, 4):  # bit for bit as with a plain header
        plain = write(tmp_path / "plain.wav", values, width=width)
        with wave.open(str(plain)) as file:
            data = file.readframes(SAMPLES)
        other = riff(1, 8 * width, data, channels=channels, extensible=extensible)
        (tmp_path / "other.wav").write_bytes(other)
        np.testing.assert_array_equal(read_clip(tmp_path / "other.wav"), read_clip(plain))


def test_short_clips_are_padded_and_long_ones_cut(tmp_path):
    short = read_clip(write(tmp_path / "short.wav", tone(100)))
    np.testing.assert_allclose(short[:100], tone(100), atol=1e-4)
    assert not short[100:].any()
    long = read_clip(write(tmp_path / "long.wav", tone(SAMPLES + 100)))
    np.testing.assert_allclose(long, tone(), atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
def test_other_rates_are_resampled(tmp_path, rate):
    found = read_clip(write(tmp_path / "a.wav", tone(rate, rate), rate=rate))
    inner = slice(200, -200)  # at the ends the filter sees the silence around the clip
    np.testing.assert_allclose(found[inner], tone()[inner], atol=2e-3)


def test_channels_are_averaged(tmp_path):
    both = np.stack([tone(), np.zeros(SAMPLES)], axis=1)
    found = read_clip(write(tmp_path / "a.wav", both))
    np.testing.assert_allclose(found, tone() / 2, atol=1e-4)


def test_flac_is_read_as_wav_is(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.flac", tone(), RATE)
    np.testing.assert_allclose(read_clip(tmp_path / "a.flac"), tone(), atol=1e-4)
    (tmp_path / "b.flac").write_bytes(b"no FLAC")
    with pytest.raises(UnreadableClipError, match=r"b\.flac"):
        read_clip(tmp_path / "b.flac")


def test_flac_without_soundfile_says_what_to_install(tmp_path, monkeypatch):
    def without(name, *others):
        if name == "soundfile":
            raise ImportError
        return real(name, *others)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnreadableClipError, match=r"a\.flac.*pip install -e '.\[speech\]'"):
        read_clip(tmp_path / "a.flac")


def test_damaged_files_are_named_with_the_reason(tmp_path):
    whole = write(tmp_path / "a.wav", tone(100)).read_bytes()
    as_float = bytearray(whole)
    as_float[20] = 3  # the format: floating point
    a_law = bytearray(whole)
    a_law[20] = 6
    no_number = riff(3, 32, np.array([0, 0, np.nan, 0], "<f4").tobytes(), channels=2)
    extensible = riff(1, 16, bytes(200), extensible=True)
    cases = {
        "cut.wav": (whole[:-51], "cut short: 74 of 100 samples are there"),
        "head.wav": (whole[:30], "cut short"),
        "text.wav": (b"no sound at all", "RIFF"),
        "nothing.wav": (b"", "the header is cut short"),
        "empty.wav": (write(tmp_path / "none.wav", []).read_bytes(), "it holds no samples"),
        "float.wav": (bytes(as_float), "samples of 16 bits; 32 and 64 can be read"),
        "a-law.wav": (bytes(a_law), r"unknown format: 6; integers \(PCM\) and floating .*ffmpeg"),
        "nan.wav": (no_number, "sample 1 is nan"),
        "extensible.wav": (extensible[:-51], "cut short: 74 of 100 samples are there"),
        "header.wav": (extensible.replace(b"data", b"more"), "there is no data chunk"),
        "bits.wav": (riff(3, 0, b""), "its header says 1 channels of 0 bits"),
    }
    for name, (data, reason) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UnreadableClipError, match=f"{name}: .*{reason}") as error:
            read_clip(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(UnreadableClipError, match=r"gone\.wav: No such file"):
        read_clip(tmp_path / "gone.wav")
