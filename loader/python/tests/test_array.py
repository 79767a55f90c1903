import ctypes
import gc
import os

import granary
import numpy as np
import pytest
from made import content, resident_bytes, write_tars


@pytest.fixture(scope="module")
def even(tmp_path_factory) -> str:
    """Samples whose ``bin`` is of one length."""
    at = tmp_path_factory.mktemp("even") / "set"
    write_tars(at, samples=64, shards=3, contents=lambda number: content(number)[:100])
    granary.index_tars(at)
    return str(at)


def test_a_view_is_lent_by_dlpack_without_a_copy_and_read_only(data):
    view = data[3]["bin"]
    array = np.from_dlpack(view)
    assert array.dtype == np.uint8 and array.tobytes() == content(3)
    assert array.__array_interface__["data"][0] == np.frombuffer(view, np.uint8).__array_interface__["data"][0]
    assert not array.flags.writeable
    assert view.__dlpack_device__() == (1, 0)
    del view
    gc.collect()
    assert array.tobytes() == content(3)


def test_who_cannot_be_told_that_it_is_read_only_has_a_copy(data):
    view = data[3]["bin"]
    old, new = view.__dlpack__(), view.__dlpack__(max_version=(1, 2))
    assert '"dltensor"' in repr(old) and '"dltensor_versioned"' in repr(new)
    with pytest.raises(BufferError, match="read only"):
        view.__dlpack__(copy=False)
    with pytest.raises(BufferError, match="main memory"):
        view.__dlpack__(dl_device=(2, 0))
    address = np.from_dlpack(view).ctypes.data
    copied = np.from_dlpack(view, copy=True)
    assert copied.ctypes.data != address and copied.tobytes() == content(3)


def test_capsules_that_nobody_takes_are_given_back(data):
    view = data[3]["bin"]
    for _ in range(1000):
        view.__dlpack__(copy=True)
    before = resident_bytes()
    for _ in range(100_000):
        view.__dlpack__(copy=True)
    assert resident_bytes() - before < 16 << 20


def test_an_empty_file_is_lent_too(tmp_path):
    write_tars(tmp_path, samples=3, shards=1, contents=lambda number: b"")
    granary.index_tars(tmp_path)
    view = granary.Dataset(tmp_path)[1]["bin"]
    assert np.from_dlpack(view).shape == (0,) == np.frombuffer(bytes(view), np.uint8).shape


def test_files_of_one_length_are_stacked(even):
    batch = next(iter(granary.Loader(even, 16, seed=1)))
    stacked = batch.stacked("bin")
    assert stacked.shape == (16, 100) and stacked.dtype == "uint8" and stacked.nbytes == 1600 and len(stacked) == 16
    array = np.asarray(stacked)
    assert [row.tobytes() for row in array] == [content(number)[:100] for number in batch.numbers()]
    # One memory, which may be written.
    array[3, 7] = 99
    assert np.from_dlpack(stacked)[3, 7] == 99 == memoryview(stacked)[3, 7]
    assert np.asarray(stacked).ctypes.data == array.ctypes.data
    assert memoryview(stacked).format == "B" and not memoryview(stacked).readonly
    assert bytes(stacked)[3 * 100 + 7] == 99
    del batch, stacked
    gc.collect()
    assert array[3, 7] == 99


def test_files_of_any_lengths_are_joined(data):
    batch = next(iter(granary.Loader(data, 20, seed=2)))
    joined, starts = map(np.asarray, batch.joined("bin"))
    assert joined.dtype == np.uint8 and starts.dtype == np.int64 and starts.shape == (21,)
    found = [joined[start:end].tobytes() for start, end in zip(starts, starts[1:])]
    assert found == [content(number) for number in batch.numbers()]
    with pytest.raises(ValueError, match="`joined` takes any lengths"):
        batch.stacked("bin")
    for method in (batch.stacked, batch.joined):
        with pytest.raises(KeyError, match="no file .png"):
            method("png")


def test_a_forked_child_has_what_its_parent_was_lent(data, even):
    lent, stacked = np.from_dlpack(data[3]["bin"]), next(iter(granary.Loader(even, 16))).stacked("bin")
    own = np.asarray(stacked)
    expected = own.copy()
    child = os.fork()
    if child == 0:
        good = lent.tobytes() == content(3) and (own == expected).all()
        own[:] = 0
        del own, stacked, lent
        gc.collect()
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (own == expected).all() and lent.tobytes() == content(3)


def test_buffers_are_as_their_flags_ask(even):
    stacked = next(iter(granary.Loader(even, 16))).stacked("bin")

    class Buffer(ctypes.Structure):
        _fields_ = [
            ("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t), ("itemsize", ctypes.c_ssize_t),
            ("readonly", ctypes.c_int), ("ndim", ctypes.c_int), ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p),
            ("strides", ctypes.c_void_p), ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
        ]  # fmt: skip

    simple = Buffer()
    get, release = ctypes.pythonapi.PyObject_GetBuffer, ctypes.pythonapi.PyBuffer_Release
    assert get(ctypes.py_object(stacked), ctypes.byref(simple), 0) == 0
    assert (simple.len, simple.shape, simple.strides, simple.format) == (1600, None, None, None)
    release(ctypes.byref(simple))
