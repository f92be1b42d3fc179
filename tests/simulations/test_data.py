"""Data sets: what is read is what is used, and what cannot be used is refused in one line."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.data.dataset import Dataset
from split_unlearning.simulations.data.loaders.registry import DATASETS
from split_unlearning.simulations.data.loading import load

SHARED_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def shared_file(name):
    """Return a file of the small real data sets that may lie beside the project."""
    path = SHARED_DATA / name
    if not path.is_file():
        pytest.skip(f"no real data beside the project: {path} is absent")
    return path


def arrays(**changed):
    """Return what a good file holds, with some of it changed or (None) left out."""
    rng = np.random.default_rng(0)
    good = {
        "x_train": rng.integers(0, 256, (6, 4, 5), dtype=np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": rng.integers(0, 256, (3, 4, 5), dtype=np.uint8),
        "y_test": np.array([2, 1, 0]),
        "class_names": np.array(["cat", "dog", "bird"]),
    }
    return {key: value for key, value in {**good, **changed}.items() if value is not None}


def write(folder, **changed):
    path = folder / "data.npz"
    np.savez(path, **arrays(**changed))
    return f"npz:{path}"


def nearest_mean_accuracy(dataset):
    """Score the simplest classifier; images and labels that do not belong together score badly."""
    images, labels = dataset.train(np.arange(len(dataset.y_train)))
    means = torch.stack(
        [images[labels == label].flatten(1).mean(0) for label in range(dataset.num_classes)]
    )
    images, labels = dataset.test(np.arange(len(dataset.y_test)))
    return (torch.cdist(images.flatten(1), means).argmin(1) == labels).float().mean().item()


def test_digits_hold_every_sample_of_scikit_learn_and_every_fifth_of_a_class_is_for_test():
    from sklearn.datasets import load_digits

    source = load_digits()
    seen = dict.fromkeys(range(10), 0)
    rows = {"train": [], "test": []}
    for row, label in enumerate(source.target):
        seen[label] += 1
        rows["test" if seen[label] % 5 == 0 else "train"].append(row)

    digits = load("digits")

    assert digits.class_names == tuple("0123456789")
    assert digits.num_classes == 10
    assert digits.input_shape == (1, 8, 8)
    assert len(digits.y_train) + len(digits.y_test) == 1797
    np.testing.assert_array_equal(digits.x_train[:, 0], source.images[rows["train"]])
    np.testing.assert_array_equal(digits.x_test[:, 0], source.images[rows["test"]])
    np.testing.assert_array_equal(digits.y_train, source.target[rows["train"]])
    np.testing.assert_array_equal(digits.y_test, source.target[rows["test"]])


@pytest.mark.parametrize("split", ["train", "test"])
def test_tensors_are_scaled_and_in_the_order_of_the_ids(split):
    digits = load("digits")
    ids = np.array([7, 0, 3])
    stored = getattr(digits, f"x_{split}")[ids]

    images, labels = getattr(digits, split)(ids)

    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    np.testing.assert_allclose(images.numpy(), stored / 8.0 - 1)
    np.testing.assert_array_equal(labels.numpy(), getattr(digits, f"y_{split}")[ids])


def test_no_ids_are_no_samples():
    images, labels = load("digits").train(np.empty(0, dtype=np.int64))
    assert images.shape == (0, 1, 8, 8)
    assert labels.shape == (0,)


def test_scaling_uses_constants_and_no_other_sample():
    dim = np.array([0, 51, 102], dtype=np.uint8).reshape(3, 1, 1, 1)
    label = np.zeros(3, dtype=np.int64)
    dataset = Dataset("dim", dim, label, dim + np.uint8(153), label, ("only",))

    images, _ = dataset.train(np.arange(3))
    alone, _ = dataset.train(np.array([1]))
    test, _ = dataset.test(np.arange(3))

    np.testing.assert_allclose(images.flatten().numpy(), [-1, -0.6, -0.2], rtol=1e-6)
    assert torch.equal(alone[0], images[1])
    np.testing.assert_allclose(test.flatten().numpy(), [0.2, 0.6, 1], rtol=1e-6)
    assert test.max() == 1


def test_float_images_are_scaled_by_what_their_owner_says():
    images = np.array([0, 0.25, 1], dtype=np.float32).reshape(3, 1, 1, 1)
    label = np.zeros(3, dtype=np.int64)
    scaled, _ = Dataset("float", images, label, images, label, ("only",), 1.0).test(np.arange(3))
    assert scaled.flatten().tolist() == [-1, -0.5, 1]


def test_grey_images_get_a_channel(tmp_path):
    dataset = load(write(tmp_path))
    good = arrays()

    assert dataset.input_shape == (1, 4, 5)
    assert dataset.class_names == ("cat", "dog", "bird")
    np.testing.assert_array_equal(dataset.x_train[:, 0], good["x_train"])
    np.testing.assert_array_equal(dataset.x_test[:, 0], good["x_test"])
    np.testing.assert_array_equal(dataset.y_train, good["y_train"])
    np.testing.assert_array_equal(dataset.y_test, good["y_test"])


def test_colours_come_first(tmp_path):
    rng = np.random.default_rng(0)
    train = rng.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
    test = rng.integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)

    dataset = load(write(tmp_path, x_train=train, x_test=test))

    assert dataset.input_shape == (3, 4, 5)
    for colour in range(3):
        np.testing.assert_array_equal(dataset.x_train[:, colour], train[..., colour])
        np.testing.assert_array_equal(dataset.x_test[:, colour], test[..., colour])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64])
def test_any_integers_are_labels(tmp_path, dtype):
    dataset = load(write(tmp_path, y_train=np.array([0, 1, 2, 0, 1, 2], dtype=dtype)))
    assert dataset.y_train.dtype == np.int64
    assert dataset.y_train.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_process_loads_once_and_nobody_can_change_what_all_share(tmp_path):
    for name in ("digits", write(tmp_path)):
        dataset = load(name)
        assert load(name) is dataset
        for array in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
        dataset.train(np.array([0]))[0].zero_()
        assert dataset.x_train[0].any()


@pytest.mark.parametrize("name", ["", "digit", "MNIST", "npz", "NPZ:/data.npz"])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(UserError) as refused:
        load(name)
    assert str(refused.value).startswith(f"dataset={name!r} ")
    for known in DATASETS.names():
        assert known in str(refused.value)


@pytest.mark.parametrize("path", ["", "data.npz", "./data.npz", "~/data.npz", "../data.npz"])
def test_a_relative_path_is_refused_even_where_the_file_exists(tmp_path, monkeypatch, path):
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="a relative path means nothing there") as refused:
        load(f"npz:{path}")
    assert str(refused.value).startswith(f"dataset='npz:{path}' ")


def refusal(name):
    """Return why a file is refused, having checked what every refusal promises."""
    with pytest.raises(UserError) as refused:
        load(name)
    message = str(refused.value)
    assert message.startswith(f"dataset={name!r} is not possible; allowed: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"x_test": None, "y_test": None}, "missing: x_test, y_test"),
        ({"class_names": None}, "missing: class_names"),
        ({"x_train": np.zeros((6, 20), np.uint8)}, "x_train: uint8, shape"),
        ({"x_train": np.zeros((6, 4, 5, 1, 1), np.uint8)}, "x_train: uint8, shape"),
        ({"x_test": np.zeros((3, 4, 5), np.float32)}, "x_test: uint8, shape"),
        ({"x_test": np.zeros((3, 4, 5), np.int64)}, "it is int64, shape (3, 4, 5)"),
        ({"x_test": np.zeros((3, 5, 4), np.uint8)}, "x_test: images shaped like those of x_train"),
        ({"x_test": np.zeros((3, 4, 5, 3), np.uint8)}, "x_test: images shaped like"),
        ({"x_train": np.zeros((0, 4, 5), np.uint8), "y_train": np.zeros(0, int)}, "x_train: at le"),
        ({"x_test": np.zeros((0, 4, 5), np.uint8), "y_test": np.zeros(0, int)}, "x_test: at least"),
        ({"x_train": np.zeros((6, 0, 5), np.uint8)}, "x_train: at least one image"),
        ({"y_train": np.array([0, 1, 2])}, "y_train: a label for each of 6 images"),
        ({"y_test": np.array([0, 1, 2, 0])}, "y_test: a label for each of 3 images"),
        ({"y_test": np.zeros(0, int)}, "y_test: a label for each of 3 images"),
        ({"y_train": np.array([0, 1, 2, 0, 1, 3])}, "y_train from 0 to 2"),
        ({"y_test": np.array([-1, 1, 0])}, "y_test from 0 to 2"),
        ({"y_test": np.array([0, 1, 2**64 - 1], np.uint64)}, "y_test from 0 to 2"),
        ({"y_test": np.array([0.0, 1.0, 2.0])}, "y_test: integers"),
        ({"y_test": np.array([[0], [1], [2]])}, "y_test: integers, shape (n,)"),
        ({"class_names": np.array(["cat", "dog"])}, "y_train from 0 to 1"),
        ({"class_names": np.array([0, 1, 2])}, "class_names: a list of different strings"),
        ({"class_names": np.array("cat")}, "class_names: a list of different strings"),
        ({"class_names": np.array(["cat", "dog", "cat"])}, "class_names: a list of different"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_key(tmp_path, changed, told):
    assert told in refusal(write(tmp_path, **changed))


def test_pickled_objects_are_not_loaded(tmp_path):
    names = np.array(["cat", "dog", "bird"], dtype=object)
    assert "without pickled objects" in refusal(write(tmp_path, class_names=names))


def test_a_file_that_is_absent_or_a_folder_is_refused(tmp_path):
    assert "No such file" in refusal(f"npz:{tmp_path / 'absent.npz'}")
    assert "a file that can be read" in refusal(f"npz:{tmp_path}")


@pytest.mark.parametrize("content", [b"", b"x", b"some text\n" * 50, b"PK\x03\x04 and no more"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    assert "a numpy.savez file" in refusal(f"npz:{path}")


def test_a_single_array_is_refused(tmp_path):
    path = tmp_path / "data.npy"
    np.save(path, arrays()["x_train"])
    assert "a numpy.savez file" in refusal(f"npz:{path}")


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **arrays())
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:length])
        refusal(f"npz:{path}")
    refusals = []
    # Inside the compressed images: the stream itself breaks, or only its checksum does.
    start = whole.index(b"x_train.npy") + len("x_train.npy")
    for offset in range(start, start + 100, 7):
        path.write_bytes(whole[:offset] + b"\xff" * 7 + whole[offset + 7 :])
        load.cache_clear()
        try:
            damaged = load(f"npz:{path}")
        except UserError as error:
            refusals.append(str(error))
        else:
            # Some bytes of an archive mean nothing.
            np.testing.assert_array_equal(damaged.x_train[:, 0], arrays()["x_train"])
    assert len(refusals) > 5
    assert not any("\n" in message for message in refusals)


def test_an_encrypted_file_is_refused(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.index(signature)
        content[at + flags] |= 1
    path.write_bytes(content)
    assert "a numpy.savez file" in refusal(f"npz:{path}")


def test_a_file_that_claims_an_impossible_size_is_refused(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays())
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**14, 4, 5)}
    )
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["x_train.npy"] = header.getvalue() + bytes(20)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert "a numpy.savez file" in refusal(f"npz:{path}")


def test_labels_belong_to_their_images():
    assert nearest_mean_accuracy(load("digits")) > 0.85


def test_real_data_beside_the_project():
    dataset = load(f"npz:{shared_file('mnist-subset.npz')}")
    assert dataset.input_shape == (1, 28, 28)
    assert dataset.class_names == tuple("0123456789")
    assert np.bincount(dataset.y_train).tolist() == [1000] * 10
    assert np.bincount(dataset.y_test).tolist() == [200] * 10
    assert nearest_mean_accuracy(dataset) > 0.75
