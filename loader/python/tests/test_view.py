import hashlib
import io
import pickle

import granary
import numpy as np
import pytest
from made import content


@pytest.fixture
def view(data: granary.Dataset) -> granary.View:
    return data[3]["bin"]


def test_it_is_lent_to_whatever_takes_bytes(view):
    expected = content(3)
    assert bytes(view) == view.tobytes() == expected
    assert len(view) == len(expected)
    assert memoryview(view) == expected
    assert io.BytesIO(view).read() == expected
    assert hashlib.sha256(view).digest() == hashlib.sha256(expected).digest()


def test_numpy_has_no_copy_of_it_and_cannot_write(view):
    array = np.frombuffer(view, np.uint8)
    again = np.frombuffer(view, np.uint8)
    assert array.tobytes() == content(3)
    assert array.__array_interface__["data"][0] == again.__array_interface__["data"][0]
    with pytest.raises(ValueError):
        array[0] = 1
    assert memoryview(view).readonly


def test_a_buffer_outlives_view_data_set_and_batch(folder):
    array = np.frombuffer(granary.Dataset(folder)[5]["bin"], np.uint8)
    assert array.tobytes() == content(5)


def test_it_compares_and_hashes_as_bytes(view, data):
    expected = content(3)
    assert view == expected == view and view == bytearray(expected) and view == data[3]["bin"]
    assert view != b"" and view != data[4]["bin"] and view != 7
    assert {view: 1}[expected] == 1


def test_indexes_and_slices(view):
    expected = content(3)
    assert view[0] == expected[0] and view[-1] == expected[-1]
    assert view[10:20] == expected[10:20] and view[-5:] == expected[-5:] and view[20:10] == b""
    assert view[::-3] == expected[::-3] and view[5:90:7] == expected[5:90:7]
    assert list(view)[:4] == list(expected)[:4]
    for bad in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            view[bad]
    with pytest.raises(TypeError):
        view["a"]


def test_text_and_numbers(data):
    cls = data[7]["cls"]
    assert cls.decode() == "7" == cls.decode("ascii") and int(cls) == 7
    with pytest.raises(UnicodeDecodeError):
        data[3]["bin"].decode()


def test_it_is_pickled_as_bytes(view):
    assert pickle.loads(pickle.dumps(view)) == content(3)
    assert type(pickle.loads(pickle.dumps(view))) is bytes
