"""Makes the files beside it, with Pillow 13.0.0 and soundfile 0.14.0: what others wrote, and what they read of it.

    python make.py

Each `NAME.jpg` has a `NAME.png` with the pixels that Pillow (libjpeg-turbo) decodes, and each `NAME.ogg` a `NAME.wav` with the
numbers that soundfile (libvorbis) decodes, of 32 bits. Each `NAME.flac` has a `NAME.wav` of the same numbers.
"""

from pathlib import Path

import numpy as np
import soundfile
from PIL import Image, ImageOps

HERE = Path(__file__).parent


def picture(mode: str) -> Image.Image:
    """Slopes, waves and an edge; 45 x 37, so that blocks are cut at both borders."""
    y, x = np.mgrid[0:37, 0:45]
    red = 255 * x // 44
    green = (127 + 120 * np.sin(x / 5.0) * np.cos(y / 7.0)).astype(int)
    blue = np.where(x + y > 40, 220, 30)
    rgb = np.stack([red, green, blue], axis=2).astype(np.uint8)
    return Image.fromarray(rgb).convert(mode)


def jpegs() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, mode, options in [
        ("baseline", "RGB", {"quality": 85}),
        ("fine", "RGB", {"quality": 92, "subsampling": 0}),
        ("wide", "RGB", {"quality": 80, "subsampling": 1}),
        ("progressive", "RGB", {"quality": 85, "progressive": True}),
        ("restarts", "RGB", {"quality": 85, "restart_marker_blocks": 2}),
        ("gray", "L", {"quality": 85}),
        ("cmyk", "CMYK", {"quality": 90}),
        ("turned", "RGB", {"quality": 85, "exif": exif.tobytes()}),
    ]:
        path = HERE / f"{name}.jpg"
        picture(mode).save(path, **options)
        decoded = ImageOps.exif_transpose(Image.open(path))
        decoded.convert("L" if mode == "L" else "RGB").save(path.with_suffix(".png"), optimize=True)


def sounds() -> None:
    rng = np.random.default_rng(1)
    for name, channels, rate, frames in [("stereo", 2, 16000, 4000), ("mono", 1, 44100, 6001)]:
        time = np.arange(frames) / rate
        tones = [0.4 * np.sin(2 * np.pi * 440 * (channel + 1) * time) for channel in range(channels)]
        sound = np.stack(tones, axis=1) + rng.normal(0, 0.02, (frames, channels))
        path = HERE / f"{name}.ogg"
        soundfile.write(path, sound, rate, format="OGG", subtype="VORBIS")
        decoded, rate = soundfile.read(path, dtype="float32", always_2d=True)
        soundfile.write(path.with_suffix(".wav"), decoded, rate, subtype="FLOAT")

    # Long enough for blocks that are predicted and whose channels are mixed; silence is a block of one number.
    for name, channels, subtype, frames in [("lossless16", 2, "PCM_16", 5000), ("lossless24", 1, "PCM_24", 3000)]:
        time = np.arange(frames) / 16000
        tones = [0.4 * np.sin(2 * np.pi * 330 * time + channel) for channel in range(channels)]
        sound = np.stack(tones, axis=1) + rng.normal(0, 0.001, (frames, channels))
        sound[-1000:] = 0
        path = HERE / f"{name}.flac"
        soundfile.write(path, sound, 16000, subtype=subtype)
        stored, rate = soundfile.read(path, dtype="int32", always_2d=True)
        soundfile.write(path.with_suffix(".wav"), stored, rate, subtype=subtype)


jpegs()
sounds()
