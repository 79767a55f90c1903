"""Which files are decoded by the loader's threads, and to what.

``decode="auto"`` decodes every JPEG, PNG, WAV, FLAC and Ogg Vorbis file as it is stored. A dictionary names extensions:

    decode={"jpg": "rgb8", "seg.png": "unchanged", "wav": granary.Audio("i16", mono=True)}

An extension says whether a file is decoded; what it is its first bytes say. ``"png"`` is meant for ``left.png`` too, unless that is named itself.
A file that is decoded is a `granary.Array` in place of a `granary.View`.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Literal, TypeAlias

from granary.errors import InvalidError

__all__ = ["Audio", "Decode", "Image"]


@dataclasses.dataclass(frozen=True)
class Image:
    """An image as an array of height x width x channels.

    Args:
        mode: ``"gray8"``, ``"rgb8"`` or ``"rgba8"``: ``uint8`` with 1, 3 or 4 channels. ``"unchanged"``: with the channels that are stored, and
            ``uint16`` of a PNG of 16 bits. A palette becomes colours, CMYK becomes RGB.
        orient: turned and mirrored as its Exif data say.
        size: height and width of what comes. Alone, all of the image is made so large, whatever its proportions; with ``shorter_side`` it is the
            middle of it that comes, as of torchvision's ``Resize(shorter_side)`` and ``CenterCrop(size)``.
        shorter_side: the shorter side becomes so long, and proportions stay. Not less than ``size``.
        filter: how pixels between pixels are made, as Pillow makes them; ``"nearest"`` leaves the numbers of a mask as they are.
        pixels_max: an image that has more, or would have when resized, is an error, before memory is taken for it; 89,478,485 when left out, where
            Pillow begins to warn.
    """

    mode: Literal["unchanged", "gray8", "rgb8", "rgba8"] = "unchanged"
    orient: bool = True
    size: tuple[int, int] | None = None
    shorter_side: int | None = None
    filter: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    pixels_max: int | None = None


@dataclasses.dataclass(frozen=True)
class Audio:
    """Sound as an array of frames x channels, which has a `sample_rate`.

    Args:
        depth: ``"f32"``: ``float32`` with full scale from -1 to 1. ``"i16"``: ``int16``, as stored where it is stored so.
        mono: one channel, the mean of all.
        channels_first: channels x frames, as torchaudio has it.
        start, frames: only this piece, in frames of the file; where the sound ends before, less comes.
        frames_max: sound of which more would come is an error, before memory is taken for it; 67,108,864 when left out.
    """

    depth: Literal["f32", "i16"] = "f32"
    mono: bool = False
    channels_first: bool = False
    start: int = 0
    frames: int | None = None
    frames_max: int | None = None


Decode: TypeAlias = str | Mapping[str, str | Image | Audio]

_EXTENSIONS = ("flac", "jpeg", "jpg", "oga", "ogg", "png", "wav", "wave")


def _json(decode: Decode | None) -> str | None:
    """As the extension takes it."""
    if decode is None:
        return None
    if isinstance(decode, str):
        if decode != "auto":
            raise InvalidError(f'decode={decode!r} says no extension: give "auto", or a dictionary as {{"jpg": {decode!r}}}')
        decode = dict.fromkeys(_EXTENSIONS, "auto")
    return json.dumps({extension: _way(way) for extension, way in decode.items()})


def _way(way: str | Image | Audio) -> dict[str, object]:
    if isinstance(way, str):
        return {"name": way}
    if not isinstance(way, (Image, Audio)):
        raise TypeError(f"{way!r} is nothing to decode to: give a name, a granary.Image or a granary.Audio")
    set_ = {name: value for name, value in dataclasses.asdict(way).items() if value is not None}
    return {"image" if isinstance(way, Image) else "audio": set_}
