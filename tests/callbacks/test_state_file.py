import numpy as np

from keras_sgl0.callbacks.state_file import StateFile


def test_a_name_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    StateFile("state.npz").write(1, [np.ones(2)])
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]
    (found,) = StateFile("state.npz").read(1, [(2,)])
    np.testing.assert_array_equal(found, np.ones(2))
