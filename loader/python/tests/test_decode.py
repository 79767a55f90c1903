"""Files decoded by the loader's threads, as Python has them. What decoders give is tested in Rust, and beside Pillow in tests/frameworks."""

import io
import json
import multiprocessing
import pickle
import tarfile
import wave

import granary
import numpy as np
import pytest
from made import png, resident_bytes

COUNT = 120


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (8, 6, 3), dtype=np.uint8)


def sound(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(-32768, 32768, (10 + number, 2), dtype=np.int16)


def wav(numbers: np.ndarray, rate: int = 16000) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(numbers.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(numbers.tobytes())
    return out.getvalue()


def write(at, samples) -> str:
    at.mkdir(parents=True, exist_ok=True)
    with tarfile.open(at / "0000.tar", "w") as tar:
        for number, files in enumerate(samples):
            for extension, payload in files.items():
                member = tarfile.TarInfo(f"{number:06d}.{extension}")
                member.size = len(payload)
                tar.addfile(member, io.BytesIO(payload))
    granary.index_tars(at)
    return str(at)


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> str:
    made = ({"cls": b"%d" % n, "png": png(pixels(n)), "wav": wav(sound(n))} for n in range(COUNT))
    return write(tmp_path_factory.mktemp("media") / "set", made)


def test_files_become_arrays_and_others_stay_as_they_are(media):
    seen = set()
    for batch in granary.Loader(media, 32, seed=1, decode="auto", tail="uneven"):
        for sample in batch:
            number = int(sample["cls"])
            image, audio = sample["png"], sample["wav"]
            assert isinstance(image, granary.Array) and isinstance(sample["cls"], granary.View)
            assert (image.shape, image.dtype, image.sample_rate) == ((8, 6, 3), "uint8", None)
            assert (np.asarray(image) == pixels(number)).all()
            assert (audio.shape, audio.dtype, audio.sample_rate) == ((10 + number, 2), "float32", 16000)
            assert (np.from_dlpack(audio) == sound(number) / np.float32(32768)).all()
            seen.add(number)
    assert seen == set(range(COUNT))


def test_ways_to_decode(media):
    ways = {"png": granary.Image("gray8"), ".WAV": granary.Audio("i16", mono=True, channels_first=True, start=2, frames=5)}
    for sample in granary.Dataset(media, decode=ways)[3:6]:
        number = int(sample["cls"])
        r, g, b = (pixels(number)[..., at].astype(int) for at in range(3))
        assert (np.asarray(sample["png"])[..., 0] == (19595 * r + 38470 * g + 7471 * b + 32768) >> 16).all()
        assert np.asarray(sample["wav"]).shape == (1, 5)
        mean = np.round(sound(number)[2:7].sum(axis=1, dtype=np.int64) / 2)
        assert (np.asarray(sample["wav"])[0] == mean).all()
    assert np.asarray(granary.Dataset(media, decode={"png": "rgba8"})[7]["png"])[..., 3].min() == 255
    assert isinstance(granary.Dataset(media, decode={"png": "rgb8"})[7]["wav"], granary.View)


def test_images_of_any_size_are_stacked(tmp_path):
    images = [np.full((h, w, 3), 10 * h + w, np.uint8) for h, w in [(8, 6), (5, 17), (20, 9), (12, 12)]]
    at = write(tmp_path, [{"png": png(image)} for image in images])
    for way, shape in [
        (granary.Image(size=(7, 9)), (7, 9, 3)),
        (granary.Image("gray8", size=(4, 6), shorter_side=6, filter="lanczos"), (4, 6, 1)),
        (granary.Image(size=(5, 5), filter="nearest"), (5, 5, 3)),
    ]:
        loader = granary.Loader(at, 4, shuffle=False, decode={"png": way})
        stacked = np.asarray(next(iter(loader)).stacked("png"))
        assert stacked.shape == (4, *shape)
        assert all((array == image[0, 0, 0]).all() for array, image in zip(stacked, images))
    sides = [granary.Dataset(at, decode={"png": granary.Image(shorter_side=10)})[n]["png"].shape for n in range(4)]
    assert sides == [(13, 10, 3), (10, 34, 3), (22, 10, 3), (10, 10, 3)]


def test_a_loader_decodes_as_its_data_sets_do_unless_it_is_told(media):
    data = granary.Dataset(media, decode={"png": "gray8"})
    assert next(iter(granary.Loader(data, 4)))[0]["png"].shape == (8, 6, 1)
    assert next(iter(granary.Loader(data, 4, decode={"png": "rgb8"})))[0]["png"].shape == (8, 6, 3)
    mixed = granary.Loader([data, granary.Dataset(media)], 60, seed=2)
    with pytest.raises(ValueError, match="for all data sets"):
        next(iter(mixed)).stacked("png")
    with pytest.raises(ValueError, match="both|is 1|shape|batch"):
        next(iter(granary.Loader([data, granary.Dataset(media, decode="auto")], 60, seed=2))).stacked("png")


def test_batches_are_stacked_and_joined(media):
    batch = next(iter(granary.Loader(media, 16, seed=3, decode={"png": "rgb8", "wav": "i16"})))
    stacked = batch.stacked("png")
    assert (stacked.shape, stacked.dtype) == ((16, 8, 6, 3), "uint8")
    assert (np.asarray(stacked) == np.stack([pixels(number) for number in batch.numbers()])).all()
    joined, starts = map(np.asarray, batch.joined("wav"))
    assert (joined == np.concatenate([sound(number) for number in batch.numbers()])).all()
    assert starts.tolist() == np.cumsum([0] + [10 + number for number in batch.numbers()]).tolist()
    assert [array.shape[0] for array in batch.column("wav")] == np.diff(starts).tolist()
    assert batch.joined("wav")[0].sample_rate == 16000
    with pytest.raises(ValueError, match=r"sample 0000\d\d: .wav is \[\d+, 2\], and the first of the batch"):
        batch.stacked("wav")
    joined, starts = map(np.asarray, batch.joined("png"))
    assert joined.shape == (128, 6, 3) and starts[-1] == 128
    with pytest.raises(KeyError, match="no file .jpg"):
        batch.stacked("jpg")


def test_what_does_not_fit_together_is_told(tmp_path):
    zeros = np.zeros((4, 1), np.int16)
    sets = [
        ([{"wav": wav(zeros)}, {"wav": wav(zeros, 8000)}], "wav", "8000 Hz, and the first of the batch 16000 Hz"),
        ([{"png": png(pixels(1))}, {"png": png(pixels(1)[:, :5])}], "png", r"\[5, 3\], and the first of the batch of \[6, 3\]"),
        ([{"png": png(pixels(1))}, {"png": png(pixels(1).astype(np.uint16))}], "png", "uint16, and the first of the batch uint8"),
    ]
    for at, (samples, extension, said) in enumerate(sets):
        batch = next(iter(granary.Loader(write(tmp_path / str(at), samples), 2, shuffle=False, decode="auto")))
        with pytest.raises(ValueError, match=said):
            batch.joined(extension)
        with pytest.raises(ValueError, match="first of the batch"):
            batch.stacked(extension)


def test_sixteen_bits_stay_unless_eight_are_asked_for(tmp_path):
    deep = np.random.default_rng(1).integers(0, 65536, (3, 4, 3), dtype=np.uint16)
    at = write(tmp_path, [{"png": png(deep)}])
    array = granary.Dataset(at, decode="auto")[0]["png"]
    assert array.dtype == "uint16" and (np.asarray(array) == deep).all() and (np.from_dlpack(array) == deep).all()
    assert (np.asarray(granary.Dataset(at, decode={"png": "rgb8"})[0]["png"]) == deep >> 8).all()


def test_arrays_are_one_memory_that_may_be_written(media):
    batch = next(iter(granary.Loader(media, 8, decode="auto")))
    first = np.asarray(batch[2]["png"])
    first[:] = 7
    assert (np.asarray(batch[2]["png"]) == 7).all() and (np.asarray(batch.column("png")[2]) == 7).all()
    assert not (np.asarray(batch[3]["png"]) == 7).all()


def test_arrays_are_pickled_with_their_numbers(media):
    sample = granary.Dataset(media, decode="auto")[9]
    for name in ("png", "wav"):
        copy = pickle.loads(pickle.dumps(sample[name]))
        assert type(copy) is granary.Array and repr(copy) == repr(sample[name])
        assert (copy.shape, copy.dtype, copy.sample_rate) == (sample[name].shape, sample[name].dtype, sample[name].sample_rate)
        assert (np.asarray(copy) == np.asarray(sample[name])).all()
    with pytest.raises(ValueError, match="no array of uint8"):
        granary._granary.array_of(b"12345", "uint8", [2, 3], None)
    with pytest.raises(ValueError, match="no array of float32"):
        granary._granary.array_of(b"12345678", "float32", [-1, -2], None)


def test_data_sets_decode_by_number_and_by_path(media):
    data = granary.Dataset(media, decode={"png": "rgb8"})
    data = pickle.loads(pickle.dumps(data))
    numbers = [5, 100, 0, -1]
    for sample, number in zip(data.read_many(numbers), numbers):
        assert (np.asarray(sample["png"]) == pixels(number % COUNT)).all()
    assert (np.asarray(data["000042.png"]) == pixels(42)).all()
    assert isinstance(data["000042.cls"], granary.View)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory) -> str:
    def files(number: int) -> dict[str, bytes]:
        whole = png(pixels(number))
        return {"cls": b"%d" % number, "png": {5: whole[:-30], 6: b"GIF89a", 17: b""}.get(number, whole)}

    return write(tmp_path_factory.mktemp("damaged") / "set", map(files, range(40)))


def test_what_cannot_be_decoded_is_raised_skipped_or_substituted(damaged):
    data = granary.Dataset(damaged, decode="auto")
    with pytest.raises(granary.CorruptError, match=r'0000.tar: "000005.png" cannot be decoded: damaged PNG'):
        data[5]
    with pytest.raises(granary.UnsupportedError, match="it begins with .GIF89a"):
        data[6]
    with pytest.raises(granary.UnsupportedError):
        data.read_many(range(10, 20))
    loader = granary.Loader(data, 10, shuffle=False)
    for _ in range(2):
        with pytest.raises(granary.GranaryError, match="cannot be decoded"):
            next(iter(loader))
    loader = granary.Loader(data, 10, on_error="skip")
    seen = sorted(int(sample["cls"]) for batch in loader for sample in batch)
    assert seen == sorted(set(range(40)) - {5, 6, 17})
    progress = loader.progress()
    assert progress["skipped"] == 3 and len(progress["messages"]) == 3 and progress["decode_seconds"] > 0
    loader = granary.Loader(data, 10, on_error="substitute")
    assert [batch.stacked("png").shape for batch in loader] == [(10, 8, 6, 3)] * 4
    assert loader.progress()["substituted"] == 3
    # Without it they are files as others.
    assert granary.Dataset(damaged)[6]["png"] == b"GIF89a"


def test_limits_are_errors_that_name_themselves(media):
    for ways, said in [
        ({"png": granary.Image(pixels_max=47)}, "6 x 8 pixels, and pixels_max is 47"),
        ({"wav": granary.Audio(frames_max=9)}, "10 frames or more, and frames_max is 9"),
        ({"png": "f32"}, "an image in Png"),
        ({"wav": "rgb8"}, "sound in Wav"),
    ]:
        with pytest.raises(granary.InvalidError, match=said):
            granary.Dataset(media, decode=ways)[0]


def test_what_is_no_way_to_decode(media):
    for ways, error, said in [
        ("rgb8", granary.InvalidError, "says no extension"),
        ({"png": "rgb9"}, granary.InvalidError, "one of auto, unchanged, gray8, rgb8, rgba8, f32, i16"),
        ({"png": granary.Image("RGB")}, granary.InvalidError, "unknown variant"),
        ({"png": granary.Image(pixels_max=0)}, granary.InvalidError, "pixels_max is 0"),
        ({"png": granary.Image(size=(0, 8))}, granary.InvalidError, "a side of 0 pixels"),
        ({"png": granary.Image(size=(8, 9), shorter_side=8)}, granary.InvalidError, "make shorter_side 9 or more"),
        ({"png": 7}, TypeError, "nothing to decode to"),
        ({"": "auto"}, granary.InvalidError, "empty extension"),
    ]:
        for make in (lambda: granary.Dataset(media, decode=ways), lambda: granary.Loader(media, 4, decode=ways)):
            with pytest.raises(error, match=said):
                make()
    with pytest.raises(granary.InvalidError, match="decoded_bytes_max is 7"):
        granary.Loader(media, 4, decode="auto", decoded_bytes=7)


def go_on(loader: granary.Loader, out) -> None:
    out.put([np.asarray(batch.stacked("png")).sum(dtype=np.int64) for batch in loader])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_running_loader_goes_on_in_another_process(media, method):
    loader = granary.Loader(media, 10, seed=2, decode={"png": "rgb8"})
    batches = iter(loader)
    next(batches)
    json.dumps(loader.state_dict())
    context = multiprocessing.get_context(method)
    out = context.Queue()
    child = context.Process(target=go_on, args=(loader, out))
    child.start()
    assert out.get(timeout=60) == [np.asarray(batch.stacked("png")).sum(dtype=np.int64) for batch in batches]
    child.join(60)
    assert child.exitcode == 0


def test_memory_is_flat(tmp_path):
    large = np.random.default_rng(1).integers(0, 256, (100, 200, 3), dtype=np.uint8)
    at = write(tmp_path, [{"png": png(large)}] * 50)
    loader = granary.Loader(at, 10, decode="auto", decoded_bytes=1 << 20, threads=2)

    def epochs(count: int) -> None:
        for _ in range(count):
            for batch in loader:
                assert batch.stacked("png").nbytes == 10 * large.nbytes

    epochs(4)
    before = resident_bytes()
    epochs(40)
    # 40 epochs are 120 MB of arrays, stacked again 120.
    assert resident_bytes() - before < 24 << 20
