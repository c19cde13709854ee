import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from napari_nucseg.errors import NucSegError
from train.readers.matfile import read_numbers

CONTENT = {
    "inst_map": np.arange(600, dtype=np.float64).reshape(20, 30),
    "a_rather_long_name": np.array([[1], [2], [3]], np.uint8),
    "small": np.array([[7]], np.int16),
    "cube": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "wide": np.array([[2**40, -5]], np.int64),
    "empty": np.zeros((0, 3)),
}
OTHERS = {"text": "abc", "cell": np.array([1, "b"], object), "struct": {"x": 1.0}, "complex": np.array([1j])}


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_come_back_as_scipy_wrote_them(tmp_path, compressed):
    path = tmp_path / "a.mat"
    savemat(path, CONTENT | OTHERS, do_compression=compressed)
    found = read_numbers(path)
    assert set(found) == set(CONTENT)
    for name, array in CONTENT.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


@settings(deadline=None, max_examples=150)
@given(compressed=st.booleans(), data=st.data())
def test_damage_never_does_more_than_raise(tmp_path_factory, compressed, data):
    path = tmp_path_factory.mktemp("mat") / "a.mat"
    savemat(path, CONTENT | OTHERS, do_compression=compressed)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(
        content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    )
    with contextlib.suppress(NucSegError):
        read_numbers(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_cut_short_is_refused(tmp_path, compressed):
    path = tmp_path / "a.mat"
    savemat(path, {"inst_map": np.eye(50)}, do_compression=compressed)
    content = path.read_bytes()
    for kept in (0, 100, 130, 200, len(content) - 9):
        path.write_bytes(content[:kept])
        with pytest.raises(NucSegError, match=r"a\.mat"):
            read_numbers(path)
