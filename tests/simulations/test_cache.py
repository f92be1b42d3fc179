"""The cache: made once, by one process, and never taken for what it no longer is."""

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from split_unlearning.foundations.errors import UserError
from split_unlearning.simulations.data import cache, loading
from split_unlearning.simulations.data.cache import fingerprint, kept, named
from split_unlearning.simulations.data.loading import load

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    load.cache_clear()
    yield tmp_path / "cache" / "split-unlearning"
    load.cache_clear()


def counted(arrays=None, facts=None):
    """Return something to make, and the list that grows each time it is made."""
    calls = []

    def make():
        calls.append(1)
        return arrays or {"x": np.arange(6).reshape(2, 3)}, facts or {"names": ["a", "ä"]}

    return make, calls


def write(path, value):
    images = np.full((4, 3, 3), value, dtype=np.uint8)
    labels = np.array([0, 1, 0, 1])
    np.savez(
        path,
        x_train=images,
        y_train=labels,
        x_test=images,
        y_test=labels,
        class_names=np.array(["a", "b"]),
    )
    return f"npz:{path}"


def test_what_was_made_once_is_read_from_files():
    make, calls = counted()
    for _ in range(3):
        arrays, facts = kept("thing-1", make)
        np.testing.assert_array_equal(arrays["x"], [[0, 1, 2], [3, 4, 5]])
        assert facts == {"names": ["a", "ä"]}
        with pytest.raises(ValueError, match="read-only"):
            arrays["x"][0] = 1
    assert len(calls) == 1
    kept("thing-2", make)
    assert len(calls) == 2


def test_arrays_are_mapped_and_not_copied():
    make, _ = counted({"x": np.zeros((1000, 1000), np.uint8), "none": np.zeros(0, np.int64)})
    kept("big", make)
    arrays, _ = kept("big", make)
    assert type(arrays["x"]) is np.ndarray
    assert isinstance(arrays["x"].base, np.memmap)
    assert arrays["none"].shape == (0,)


def test_the_folder_is_its_owners_alone(own_cache):
    kept("thing", counted()[0])
    assert own_cache.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", ["x.npy", "facts.json"])
@pytest.mark.parametrize("how", ["missing", "empty", "short"])
def test_what_is_not_whole_is_made_again(own_cache, damage, how):
    make, calls = counted()
    kept("thing", make)
    path = own_cache / "thing" / damage
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if how == "empty" else path.read_bytes()[:-8])
    arrays, _ = kept("thing", make)
    np.testing.assert_array_equal(arrays["x"], [[0, 1, 2], [3, 4, 5]])
    assert len(calls) == 2
    kept("thing", make)
    assert len(calls) == 2


def test_what_cannot_be_kept_is_made_each_time_and_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    make, calls = counted()
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="nothing is kept"):
            arrays, _ = kept("thing", make)
        assert arrays["x"].shape == (2, 3)
        with pytest.raises(ValueError, match="read-only"):
            arrays["x"][0] = 1
    assert len(calls) == 2


def test_a_folder_of_another_user_is_not_trusted(own_cache, monkeypatch):
    make, calls = counted()
    kept("thing", make)
    monkeypatch.setattr(os, "getuid", lambda: own_cache.stat().st_uid + 1)
    with pytest.warns(RuntimeWarning, match="belongs to another user"):
        kept("thing", make)
    assert len(calls) == 2


def test_a_relative_cache_home_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    kept("thing", counted()[0])
    assert (tmp_path / ".cache" / "split-unlearning" / "thing").is_dir()


def test_a_failure_leaves_nothing_behind(own_cache):
    def fail():
        raise UserError("no")

    with pytest.raises(UserError):
        kept("thing", fail)
    assert {one.name for one in own_cache.iterdir()} == {"lock"}


def test_what_nobody_asked_for_in_a_month_goes(own_cache):
    make, _ = counted()
    for name in ("old", "used"):
        kept(name, make)
    (own_cache / "cut-off").mkdir()
    long_ago = time.time() - 31 * 24 * 3600
    for name in ("old", "used", "cut-off"):
        os.utime(own_cache / name, (long_ago, long_ago))
    kept("used", make)
    kept("new", make)
    assert {one.name for one in own_cache.iterdir()} == {"lock", "used", "new"}


def test_names_follow_from_every_part():
    labels = np.arange(3)
    names = {
        named("plan", labels, 1),
        named("plan", labels, 2),
        named("plan", labels.astype(np.int32), 1),
        named("plan", labels[:2], 1),
        named("data", labels, 1),
    }
    assert len(names) == 5
    assert named("plan", labels, 1) == named("plan", np.arange(3), 1)


def test_a_fingerprint_sees_every_change_however_quick(tmp_path):
    path = tmp_path / "file"
    seen = set()
    for number in range(50):
        path.write_text(f"{number:03}")
        # As a careless copy leaves it.
        os.utime(path, (0, 0))
        seen.add(fingerprint("data", "as", [path], time.time()))
    assert len(seen) == 50


def test_a_fingerprint_sees_an_old_file_replaced_by_one_of_its_size_and_age(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_GRAIN_SECONDS", 0.0)
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_text("one")
    os.utime(path, (0, 0))
    now = time.time()
    before = fingerprint("data", "as", [path], now)
    assert fingerprint("data", "as", [path], now) == before
    assert fingerprint("data", "otherwise", [path], now) != before
    other.write_text("two")
    os.utime(other, (0, 0))
    other.rename(path)
    assert fingerprint("data", "as", [path], now) != before


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "data.npz"
    for value in (1, 2, 1, 3):
        name = write(path, value)
        load.cache_clear()
        assert (load(name).x_train == value).all()


def test_a_file_that_grows_old_while_it_is_read_has_not_changed(tmp_path, monkeypatch, own_cache):
    name = write(tmp_path / "data.npz", 1)
    load.cache_clear()
    hours = itertools.count(time.time(), 3600.0)
    monkeypatch.setattr(time, "time", lambda: next(hours))
    assert (load(name).x_train == 1).all()
    assert len(list(own_cache.glob("data-*"))) == 1


def test_a_file_that_changes_while_it_is_read_is_refused_and_not_kept(
    tmp_path, monkeypatch, own_cache
):
    path = tmp_path / "data.npz"
    name = write(path, 1)
    real = loading._source

    def disturbed(*arguments):
        source = real(*arguments)

        def read():
            dataset = source.read()
            write(path, 2)
            return dataset

        return type(source)(source.name, source.files, read)

    monkeypatch.setattr(loading, "_source", disturbed)
    with pytest.raises(UserError, match="nobody changes while they are read"):
        load(name)
    assert {one.name for one in own_cache.iterdir()} == {"lock"}


SLOW = """
import sys, time
import numpy as np
from pathlib import Path
from split_unlearning.simulations.data.cache import kept

def make():
    with Path(sys.argv[1]).open("a") as log:
        log.write("made\\n")
    time.sleep(0.5)
    return {"x": np.arange(1000)}, {}

arrays, _ = kept("thing", make)
print(int(arrays["x"].sum()))
"""


def test_processes_that_ask_at_once_make_it_once(tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", SLOW, str(log)]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert [one.communicate()[0].strip() for one in running] == ["499500"] * 3
    assert log.read_text() == "made\n"


def test_a_process_that_finds_digits_in_the_cache_does_not_import_scikit_learn():
    here = load("digits")
    script = (
        "import sys; from split_unlearning.simulations.data.loading import load; "
        "print(load('digits').x_train.sum(), 'sklearn' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert said == [str(here.x_train.sum()), "False"]
