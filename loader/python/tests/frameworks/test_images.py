"""Images as Pillow decodes them: PNGs number by number, JPEGs within some levels; and arrays in torch's and grain's hands."""

import io

import granary
import granary.grain
import granary.tf
import granary.torch
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from readme import JPEGS
from test_decode import pixels, write
from torch.utils.data import DataLoader


def picture(seed: int, width: int, height: int) -> Image.Image:
    """Slopes and shapes, as photographs have and noise has not."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin(x / rng.uniform(3, 40)) * np.cos(y / rng.uniform(3, 40)) for _ in range(3)]
    image = np.stack(waves, axis=2) + rng.normal(0, 4, (height, width, 3))
    image[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, 3)
    return Image.fromarray(image.clip(0, 255).astype(np.uint8))


def saved(image: Image.Image, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, **options)
    return out.getvalue()


SIZES = [(1, 1), (7, 9), (16, 16), (17, 33), (64, 48), (200, 133)]
PNG_MODES = {"1": "gray8", "L": "gray8", "P": "rgb8", "RGB": "rgb8", "LA": "rgba8", "RGBA": "rgba8"}


def test_pngs_are_as_pillow_decodes_them(tmp_path):
    cases = [(mode, picture(at, *size).convert(mode)) for at, size in enumerate(SIZES) for mode in PNG_MODES]
    data = granary.Dataset(write(tmp_path, [{"png": saved(image, format="PNG")} for _, image in cases]), decode="auto")
    for (mode, image), sample in zip(cases, data, strict=True):
        for way in ("gray8", "rgb8", "rgba8"):
            of_pillow = np.asarray(image.convert({"gray8": "L", "rgb8": "RGB", "rgba8": "RGBA"}[way]))
            decoded = granary.Dataset(data.url, decode={"png": way})[int(sample["__key__"])]["png"]
            assert (np.asarray(decoded).reshape(of_pillow.shape) == of_pillow).all(), (mode, way, image.size)


def test_pngs_of_sixteen_bits_stay_so_in_torch_too(tmp_path):
    deep = np.random.default_rng(1).integers(0, 65536, (9, 11), dtype=np.uint16)
    coded = saved(Image.fromarray(deep), format="PNG")
    own = torch.from_dlpack(granary.Dataset(write(tmp_path, [{"png": coded}]), decode="auto")[0]["png"])
    # Not torchvision's: it brings an LLVM that TensorFlow's does not bear in one process.
    assert own.dtype == torch.uint16 and (own.numpy()[..., 0] == deep).all()


def test_jpegs_are_near_what_pillow_decodes(tmp_path):
    options = [
        {"quality": quality, "subsampling": subsampling, "progressive": progressive}
        for quality in (60, 90)
        for subsampling in (0, 1, 2)
        for progressive in (False, True)
    ]
    cases = [saved(picture(at, *size), format="JPEG", **of) for at, size in enumerate(SIZES) for of in options]
    cases += [saved(picture(9, 50, 41).convert(mode), format="JPEG", quality=90) for mode in ("L", "CMYK")]
    data = granary.Dataset(write(tmp_path, [{"jpg": coded} for coded in cases]), decode={"jpg": "rgb8"})
    worst, sums = 0, []
    for coded, sample in zip(cases, data, strict=True):
        of_pillow = np.asarray(Image.open(io.BytesIO(coded)).convert("RGB")).astype(int)
        off = np.abs(np.asarray(sample["jpg"]) - of_pillow)
        worst, sums = max(worst, off.max()), [*sums, off.mean()]
    print(f"JPEG beside Pillow: at most {worst} of 255, {np.mean(sums):.3f} on average, {max(sums):.3f} of the worst image")
    assert worst <= 12 and max(sums) < 1


FILTERS = {"nearest": Image.NEAREST, "bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}


@pytest.mark.parametrize("name", FILTERS)
def test_images_are_resized_as_pillow_resizes_them(tmp_path, name):
    cases = [picture(at, *size).convert(mode) for at, size in enumerate(SIZES) for mode in ("L", "RGB", "RGBA")]
    at = write(tmp_path, [{"png": saved(image, format="PNG")} for image in cases])
    worst, means, others = 0, [], []
    for height, width in [(16, 24), (50, 31), (100, 1)]:
        data = granary.Dataset(at, decode={"png": granary.Image(size=(height, width), filter=name)})
        for image, sample in zip(cases, data, strict=True):
            own = np.asarray(sample["png"]).astype(int)
            off = np.abs(own - np.asarray(image.resize((width, height), FILTERS[name])).reshape(own.shape))
            worst, means, others = max(worst, off.max()), [*means, off.mean()], [*others, (off > 0).mean()]
            assert name != "nearest" or np.isin(own, np.asarray(image)).all()
    print(f"{name} beside Pillow: at most {worst} of 255, {max(means):.3f} on average in the worst image, {max(others):.3f} of its numbers")
    if name == "nearest":
        # Where two are as near, one or the other.
        assert max(others) < 0.3 and np.mean(others) < 0.06
    else:
        # Pillow resizes rows first, and what is beyond 0 and 255 in between is lost; bilinear has nothing there.
        assert worst <= (1 if name == "bilinear" else 16) and max(means) < 0.5


def test_the_middle_is_that_of_torchvision(tmp_path):
    cases = [picture(at, *size) for at, size in enumerate([(500, 375), (333, 500), (64, 48), (41, 90)])]
    at = write(tmp_path, [{"png": saved(image, format="PNG")} for image in cases])
    data = granary.Dataset(at, decode={"png": granary.Image(size=(50, 56), shorter_side=64)})
    for image, sample in zip(cases, data, strict=True):
        width, height = (side * 64 // min(image.size) for side in image.size)
        left, top = round((width - 56) / 2.0), round((height - 50) / 2.0)
        whole = image.resize((width, height), Image.BILINEAR).crop((left, top, left + 56, top + 50))
        assert np.abs(np.asarray(sample["png"]).astype(int) - np.asarray(whole)).max() <= 1


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_images_are_turned_as_pillow_turns_them(tmp_path, format):
    samples = []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        samples.append({"img": saved(picture(3, 40, 24), format=format, exif=exif)})
    for sample, files in zip(granary.Dataset(write(tmp_path, samples), decode={"img": "rgb8"}), samples):
        of_pillow = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(files["img"]))))
        own = np.asarray(sample["img"])
        assert own.shape == of_pillow.shape and np.abs(own.astype(int) - of_pillow).max() <= (12 if format == "JPEG" else 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_torch_has_tensors_and_collates_them(tmp_path, workers):
    from made import png

    at = write(tmp_path, [{"png": png(pixels(n)), "cls": b"%d" % n} for n in range(12)])
    data = granary.torch.MapDataset(at, decode={"png": "rgb8"})
    batch = next(iter(DataLoader(data, batch_size=4, num_workers=workers)))
    assert torch.equal(batch["png"], torch.from_numpy(np.stack([pixels(n) for n in range(4)])))
    stream = granary.torch.IterableDataset(at, batch_size=6, decode={"png": "rgb8"}, shuffle=False)
    batches = list(DataLoader(stream, batch_size=None, num_workers=workers))
    assert [int(sample["cls"]) for batch in batches for sample in batch] == list(range(12))
    assert all((sample["png"].numpy() == pixels(int(sample["cls"]))).all() for batch in batches for sample in batch)


def test_grain_has_numpy_s_arrays_and_tensorflow_is_told(tmp_path):
    at = write(tmp_path, [{"jpg": path.read_bytes(), "cls": b"1"} for path in JPEGS])
    sample = granary.grain.DataSource(at, decode={"jpg": "rgb8"})[1]
    assert type(sample["jpg"]) is np.ndarray and sample["jpg"].shape == (37, 45, 3) and sample["cls"] == b"1"
    loader = granary.Loader(at, 4, decode={"jpg": "rgb8"})
    assert next(iter(granary.tf.dataset(loader, ["cls"])))["cls"].shape == (4,)
    with pytest.raises(Exception, match="leave it out of decode"):
        next(iter(granary.tf.dataset(loader, ["jpg"])))
