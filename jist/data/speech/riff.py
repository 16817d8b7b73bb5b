"""A WAV file as the standard library's `wave` does not take it: floating point, or extensible.

An extensible header (`WAVE_FORMAT_EXTENSIBLE`) is what many programs write for 24 bits or several
channels; the encoding stands at its end.
"""

import dataclasses
import os
import struct

INTEGERS, FLOATS = 1, 3  # encodings
_EXTENSIBLE = 0xFFFE
_FORMAT = struct.Struct("<HHIIHH")


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """What a file says and holds.

    Attributes:
        encoding: of a sample, `INTEGERS`, `FLOATS` or any other number.
        channels: number of channels, at least 1.
        rate: samples per second.
        width: bytes of a sample, at least 1.
        frames: samples of each channel, by the header.
        data: the samples, those of all channels together; less than the header says if the file is
            cut short.
    """

    encoding: int
    channels: int
    rate: int
    width: int
    frames: int
    data: bytes


def read(path: str | os.PathLike) -> Recording:
    """Reads a WAV file of any encoding, without decoding its samples.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no WAV file, or damaged; the message says how.
    """
    with open(path, "rb") as file:
        data = file.read()
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise ValueError("it does not begin as a WAV file does")
    header = None
    at = 12
    while at + 8 <= len(data):
        name, (size,) = data[at : at + 4], struct.unpack_from("<I", data, at + 4)
        body = data[at + 8 : at + 8 + size]
        if name == b"fmt ":
            header = body
        elif name == b"data":
            return _recording(header, body, size)
        at += 8 + size + size % 2  # chunks begin at even places
    raise ValueError("it holds no samples: there is no data chunk")


def _recording(header: bytes | None, data: bytes, size: int) -> Recording:
    if header is None or len(header) < _FORMAT.size:
        raise ValueError("its header is cut short, or does not stand before the samples")
    encoding, channels, rate, _, _, bits = _FORMAT.unpack_from(header)
    if encoding == _EXTENSIBLE:
        if len(header) < 26:
            raise ValueError("its extensible header is cut short")
        (encoding,) = struct.unpack_from("<H", header, 24)
    width = (bits + 7) // 8
    if not channels or not width:
        raise ValueError(f"its header says {channels} channels of {bits} bits")
    return Recording(encoding, channels, rate, width, size // (channels * width), data)
