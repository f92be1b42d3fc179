"""Published data sets: read from files in their real formats, refused if those are not right."""

import gzip
import hashlib
import pickle
import shutil
import struct
import tarfile
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from torchvision import datasets

from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.data.loading import load

SHARED_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker")


def grey(**changed):
    """Return a small set of grey images, with some of it changed."""
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (12, 28, 28), dtype=np.uint8),
        "y_train": np.arange(12, dtype=np.uint8) % 10,
        "x_test": rng.integers(0, 256, (4, 28, 28), dtype=np.uint8),
        "y_test": np.array([9, 0, 3, 3], dtype=np.uint8),
        **changed,
    }


def idx_bytes(array):
    """Return an array of bytes in the format that its authors describe."""
    return struct.pack(f">4B{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder, arrays, packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for key, stem in IDX.items():
        content = idx_bytes(arrays[key])
        if packed:
            (folder / f"{stem}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / stem).write_bytes(content)
    return folder


def refusal(name, data_dir="", download=False, key="dataset"):
    """Return why a data set is refused, having checked what every refusal promises."""
    with pytest.raises(UserError) as refused:
        load(name, str(data_dir), download)
    message = str(refused.value)
    assert message.startswith(f"{key}=")
    assert "\n" not in message
    return message


def check_arrays(dataset, arrays):
    for split in ("train", "test"):
        images = arrays[f"x_{split}"]
        shaped = images[:, None] if images.ndim == 3 else images
        np.testing.assert_array_equal(getattr(dataset, f"x_{split}"), shaped)
        np.testing.assert_array_equal(getattr(dataset, f"y_{split}"), arrays[f"y_{split}"])
        assert getattr(dataset, f"y_{split}").dtype == np.int64
        assert getattr(dataset, f"x_{split}").dtype == np.uint8


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "below"),
    [("mnist", "MNIST/raw"), ("mnist", ""), ("fashion-mnist", "FashionMNIST/raw")],
)
def test_idx_files_are_read_where_torchvision_puts_them_and_where_they_lie(
    tmp_path, name, below, packed
):
    arrays = grey()
    write_idx(tmp_path / below, arrays, packed)
    dataset = load(name, str(tmp_path))
    check_arrays(dataset, arrays)
    assert dataset.input_shape == (1, 28, 28)
    assert dataset.num_classes == 10
    expected = FASHION if name == "fashion-mnist" else tuple("01234567")
    assert dataset.class_names[:8] == expected


def test_idx_files_that_torchvision_reads_are_read_alike(tmp_path):
    write_idx(tmp_path / "MNIST" / "raw", grey())
    theirs = datasets.MNIST(str(tmp_path), train=False)
    ours = load("mnist", str(tmp_path))
    np.testing.assert_array_equal(ours.x_test[:, 0], theirs.data.numpy())
    np.testing.assert_array_equal(ours.y_test, theirs.targets.numpy())


def test_the_two_sets_of_one_format_are_not_taken_for_each_other(tmp_path):
    write_idx(tmp_path, grey())
    names = [load(name, str(tmp_path)).class_names[0] for name in ("mnist", "fashion-mnist")]
    assert names == ["0", "T-shirt/top"]


def test_the_debian_package_is_found_without_a_data_dir(tmp_path, monkeypatch):
    from split_unlearning.simulations.data.loaders import idx

    arrays = grey()
    write_idx(tmp_path, arrays, packed=True)
    monkeypatch.setattr(idx, "_DEBIAN", tmp_path)
    load.cache_clear()
    check_arrays(load("fashion-mnist"), arrays)
    # Who names a folder means that one.
    (tmp_path / "empty").mkdir()
    refusal("fashion-mnist", tmp_path / "empty", key="data-dir")
    load.cache_clear()


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_without_a_data_dir_the_line_says_where_files_are_expected(name):
    message = refusal(name, key="data-dir")
    assert name in message
    assert "download=true" in message


def test_a_missing_file_is_named(tmp_path):
    write_idx(tmp_path, grey())
    (tmp_path / IDX["y_test"]).unlink()
    assert IDX["y_test"] in refusal("mnist", tmp_path, key="data-dir")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"y_train": np.zeros(11, np.uint8)}, "12 images for 11 labels"),
        ({"y_test": np.array([1, 2, 3, 10], np.uint8)}, "the label 10"),
        ({"x_test": np.zeros((4, 28, 27), np.uint8)}, "another shape"),
        (
            {"x_train": np.zeros((0, 28, 28), np.uint8), "y_train": np.zeros(0, np.uint8)},
            IDX["x_train"],
        ),
        ({"x_train": np.zeros((12, 28), np.uint8)}, "should have 3 dimension"),
    ],
)
def test_idx_files_that_do_not_belong_together_are_refused(tmp_path, changed, told):
    write_idx(tmp_path, grey(**changed))
    assert told in refusal("mnist", tmp_path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_idx_file_is_refused_by_name(tmp_path, packed):
    write_idx(tmp_path, grey(), packed)
    path = tmp_path / (IDX["x_train"] + (".gz" if packed else ""))
    whole = path.read_bytes()
    for content in (b"", b"\x00", b"text", whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        load.cache_clear()
        assert path.name in refusal("mnist", tmp_path)


def test_a_bit_that_flipped_in_a_compressed_file_is_found(tmp_path):
    write_idx(tmp_path, grey(), packed=True)
    path = tmp_path / f"{IDX['x_train']}.gz"
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # the checksum at its end
    path.write_bytes(content)
    assert "CRC" in refusal("mnist", tmp_path)


def write_cifar(root, kind, names, label_key, per_file=4):
    """Write the pickles of a CIFAR set; return their arrays, and the MD5 of each file."""
    rng = np.random.default_rng(1)
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    found = {"train": ([], []), "test": ([], [])}
    sums = {}

    def write(name, content):
        path = folder / name
        path.write_bytes(pickle.dumps(content, protocol=2))
        sums[name] = hashlib.md5(path.read_bytes()).hexdigest()

    for split, listed in (("train", kind.train_list), ("test", kind.test_list)):
        for name, _ in listed:
            data = rng.integers(0, 256, (per_file, 3072), dtype=np.uint8)
            labels = rng.integers(0, len(names), per_file).tolist()
            write(name, {"data": data, label_key: labels})
            found[split][0].append(data.reshape(-1, 3, 32, 32))
            found[split][1].extend(labels)
    write(kind.meta["filename"], {kind.meta["key"]: list(names)})
    arrays = {}
    for split, (images, labels) in found.items():
        arrays[f"x_{split}"], arrays[f"y_{split}"] = np.concatenate(images), np.array(labels)
    return arrays, sums


def know(monkeypatch, kind, sums):
    """Let torchvision take these files for the published ones: it still compares each MD5."""
    for listed in ("train_list", "test_list"):
        known = [[name, sums[name]] for name, _ in getattr(kind, listed)]
        monkeypatch.setattr(kind, listed, known)
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums[kind.meta["filename"]]})


CIFAR = {
    "cifar10": (datasets.CIFAR10, [f"class {number}" for number in range(10)], "labels"),
    "cifar100": (datasets.CIFAR100, [f"fine {number}" for number in range(100)], "fine_labels"),
}


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_files_are_read_once_their_md5_is_right(tmp_path, monkeypatch, name):
    kind, names, key = CIFAR[name]
    arrays, sums = write_cifar(tmp_path, kind, names, key)
    assert "MD5" in refusal(name, tmp_path)

    know(monkeypatch, kind, sums)
    load.cache_clear()
    dataset = load(name, str(tmp_path))

    check_arrays(dataset, arrays)
    assert dataset.class_names == tuple(names)
    assert dataset.input_shape == (3, 32, 32)


def test_a_cifar_file_that_is_not_the_published_one_is_never_opened(tmp_path, monkeypatch):
    kind, names, key = CIFAR["cifar10"]
    _, sums = write_cifar(tmp_path, kind, names, key)
    know(monkeypatch, kind, sums)
    marker = tmp_path / "was opened"

    class Trap:
        def __reduce__(self):
            return Path.touch, (marker,)

    (tmp_path / kind.base_folder / "data_batch_3").write_bytes(pickle.dumps(Trap()))
    assert "MD5" in refusal("cifar10", tmp_path)
    assert not marker.exists()


def test_a_missing_cifar_file_is_refused_by_name(tmp_path):
    kind, names, key = CIFAR["cifar10"]
    write_cifar(tmp_path, kind, names, key)
    (tmp_path / kind.base_folder / "test_batch").unlink()
    message = refusal("cifar10", tmp_path, key="data-dir")
    assert "test_batch" in message
    assert "cifar-10-batches-py" in message


@contextmanager
def served(folder):
    """Serve a folder over HTTP, to this machine alone; yield its address."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_what_is_missing_is_fetched_if_the_user_allows_it(tmp_path, monkeypatch):
    kind, names, key = CIFAR["cifar100"]
    arrays, sums = write_cifar(tmp_path / "mirror", kind, names, key)
    archive = tmp_path / kind.filename
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "mirror" / kind.base_folder, kind.base_folder)
    know(monkeypatch, kind, sums)
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    data_dir = tmp_path / "data"

    refusal("cifar100", data_dir, key="data-dir")
    assert not data_dir.exists()
    with served(tmp_path) as address:
        monkeypatch.setattr(kind, "url", address + archive.name)
        check_arrays(load("cifar100", str(data_dir), True), arrays)

    # What is there is not fetched again.
    load.cache_clear()
    check_arrays(load("cifar100", str(data_dir), True), arrays)


def test_idx_files_are_fetched_too(tmp_path, monkeypatch):
    arrays = grey()
    mirror = write_idx(tmp_path / "mirror", arrays, packed=True)
    known = [
        (name, hashlib.md5((mirror / name).read_bytes()).hexdigest())
        for name, _ in datasets.MNIST.resources
    ]
    monkeypatch.setattr(datasets.MNIST, "resources", known)
    with served(mirror) as address:
        monkeypatch.setattr(datasets.MNIST, "mirrors", [address])
        check_arrays(load("mnist", str(tmp_path / "data"), True), arrays)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_fetch_that_fails_is_told_in_one_line(tmp_path, monkeypatch, name):
    nowhere = (tmp_path / "nowhere").as_uri() + "/"
    monkeypatch.setattr(datasets.MNIST, "mirrors", [nowhere])
    monkeypatch.setattr(datasets.CIFAR10, "url", nowhere)
    refusal(name, tmp_path / "data", True, key="download")


@pytest.mark.parametrize("name", ["digits", "npz:/x.npz", "folder:/x"])
def test_keys_that_a_data_set_ignores_are_refused(name):
    assert "ignores it" in refusal(name, "/data", key="data-dir")
    assert "ignores it" in refusal(name, "", True, key="download")


def write_images(root, shape=(6, 5, 3), suffix=".png", classes=("cat", "dog"), each=3):
    """Write a folder of images; return what it holds, in the order of the ids."""
    from PIL import Image

    rng = np.random.default_rng(2)
    arrays = {}
    for split in ("train", "test"):
        images, labels = [], []
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(each):
                image = rng.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(image).save(folder / f"{number}{suffix}")
                images.append(image if len(shape) == 2 else image.transpose(2, 0, 1))
                labels.append(label)
        arrays[f"x_{split}"], arrays[f"y_{split}"] = np.stack(images), np.array(labels)
    return arrays


@pytest.mark.parametrize("shape", [(6, 5, 3), (6, 5)])
def test_a_folder_of_images_is_read(tmp_path, shape):
    arrays = write_images(tmp_path, shape)
    dataset = load(f"folder:{tmp_path}")
    check_arrays(dataset, arrays)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.input_shape == ((len(shape[2:]) and 3) or 1, 6, 5)


def test_a_folder_is_read_in_the_order_of_torchvision(tmp_path):
    write_images(tmp_path, classes=("b", "a", "C"))
    (tmp_path / "train" / "a" / "notes.txt").write_text("no image")
    theirs = datasets.ImageFolder(str(tmp_path / "train"))
    ours = load(f"folder:{tmp_path}")
    assert list(ours.class_names) == theirs.classes
    assert ours.y_train.tolist() == theirs.targets
    for row, (image, _) in enumerate(theirs):
        np.testing.assert_array_equal(ours.x_train[row], np.asarray(image).transpose(2, 0, 1))


def test_one_coloured_image_makes_all_of_them_coloured(tmp_path):
    from PIL import Image

    write_images(tmp_path, (6, 5))
    Image.fromarray(np.full((6, 5, 3), [255, 0, 0], np.uint8)).save(tmp_path / "test/dog/9.png")
    dataset = load(f"folder:{tmp_path}")
    assert dataset.input_shape == (3, 6, 5)
    assert dataset.x_test[-1, :, 0, 0].tolist() == [255, 0, 0]
    assert (dataset.x_train[:, 0] == dataset.x_train[:, 2]).all()


def test_a_test_split_may_lack_a_class_but_not_have_one_more(tmp_path):
    write_images(tmp_path, classes=("a", "b", "c"))
    shutil.rmtree(tmp_path / "test" / "a")
    assert load(f"folder:{tmp_path}").y_test.tolist() == [1] * 3 + [2] * 3
    (tmp_path / "test" / "d").mkdir()
    load.cache_clear()
    assert "'d'" in refusal(f"folder:{tmp_path}")


def test_images_that_do_not_fit_are_refused_by_file(tmp_path):
    from PIL import Image

    name = f"folder:{tmp_path}"
    assert "train" in refusal(name)
    write_images(tmp_path)
    Image.new("RGB", (6, 5)).save(tmp_path / "train" / "dog" / "7.png")
    assert "7.png" in refusal(name)
    (tmp_path / "train" / "dog" / "7.png").write_bytes(b"no image")
    assert "7.png" in refusal(name)
    (tmp_path / "train" / "dog" / "7.png").unlink()
    load(name)
    shutil.rmtree(tmp_path / "test")
    load.cache_clear()
    assert "No such file" in refusal(name)


@pytest.mark.parametrize("path", ["", "images", "~/images"])
def test_a_relative_folder_is_refused(path):
    assert "a relative path means nothing there" in refusal(f"folder:{path}")


def test_real_images_in_the_real_format_are_learnt_from_as_the_same_npz_is(tmp_path):
    path = SHARED_DATA / "fashion-mnist-subset.npz"
    if not path.is_file():
        pytest.skip(f"no real data beside the project: {path} is absent")
    with np.load(path) as archive:
        arrays = {key: archive[key][::10] for key in IDX}
        names = tuple(archive["class_names"])
    arrays = {
        key: found.astype(np.uint8) if key.startswith("y") else found
        for key, found in arrays.items()
    }
    write_idx(tmp_path, arrays, packed=True)
    dataset = load("fashion-mnist", str(tmp_path))
    check_arrays(dataset, arrays)
    assert dataset.class_names == names
