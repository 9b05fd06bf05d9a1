"""Capture files of Ethernet frames, little-endian, with time stamps in microseconds."""

import struct
from pathlib import Path

_MAGIC, _ETHERNET, _LONGEST = 0xA1B2C3D4, 1, 262_144
_FILE, _RECORD = struct.Struct("<IHHiIII"), struct.Struct("<IIII")


def write(path: Path, frames: list[bytes]) -> None:
    """Writes frames, a millisecond apart."""
    out = [_FILE.pack(_MAGIC, 2, 4, 0, 0, _LONGEST, _ETHERNET)]
    for i, frame in enumerate(frames):
        out += [_RECORD.pack(i // 1000, i % 1000 * 1000, len(frame), len(frame)), frame]
    path.write_bytes(b"".join(out))


def read(path: Path) -> list[bytes]:
    """The frames of a file."""
    data = path.read_bytes()
    magic, *_, network = _FILE.unpack_from(data)
    if (magic, network) != (_MAGIC, _ETHERNET):
        raise ValueError(f"{path}: not a capture of Ethernet frames as written here")
    frames, at = [], _FILE.size
    while at < len(data):
        _, _, stored, _ = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        frames.append(data[at : at + stored])
        at += stored
    return frames
