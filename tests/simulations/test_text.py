"""Texts: how they are read, and how they become token ids."""

import csv
from pathlib import Path

import numpy as np
import pytest

from split_unlearning.foundations.errors import UserError
from split_unlearning.models.bert import VOCABULARY
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.data.loading import load, load_all
from split_unlearning.simulations.data.tokenizer import Tokens
from split_unlearning.simulations.preparation import prepare
from tests.texts import edit, small_bert

ROWS = [(3, "Oil, up", 'He said "no"'), (4, "Chips", "smaller\\again"), (1, "Talks", "in town")]


def write_csv(folder):
    for split in ("train", "test"):
        with (folder / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows(ROWS)


def test_words_are_hashed_and_padded():
    ids = Tokens(5).ids(["Stocks fell, again", "FELL stocks", "a b c d e f g", ""])
    assert ids.dtype == np.int32
    assert ids.shape == (4, 5)
    assert ids[0, 0] == ids[1, 1]
    assert ids[0, 1] == ids[1, 0]
    assert ids[0, 4] == 0
    assert (ids[1, 2:] == 0).all()
    assert (ids[2] > 0).all()
    assert ids[3, 0] > 0
    assert ids.max() < VOCABULARY


def test_a_texts_ids_do_not_depend_on_the_others():
    together = Tokens(8).ids(["one text", "another text"])
    assert np.array_equal(together[1:], Tokens(8).ids(["another text"]))


def test_the_published_csv_is_read(tmp_path):
    write_csv(tmp_path)
    found = load("agnews", str(tmp_path), tokens=Tokens(6))
    assert found.class_names == ("World", "Sports", "Business", "Sci/Tech")
    assert found.y_train.tolist() == [2, 3, 0]
    assert np.array_equal(found.x_train, Tokens(6).ids([f"{a} {b}" for _, a, b in ROWS]))
    assert found.input_shape == (6,)
    x, y = found.train(np.array([1]))
    assert (str(x.dtype), y.tolist()) == ("torch.int64", [3])


def test_another_length_is_not_taken_from_the_cache(tmp_path):
    write_csv(tmp_path)
    assert load("agnews", str(tmp_path), tokens=Tokens(6)).input_shape == (6,)
    assert load("agnews", str(tmp_path), tokens=Tokens(7)).input_shape == (7,)


def test_the_hubs_parquet_is_read(tmp_path):
    from datasets import Dataset

    for split in ("train", "test"):
        rows = {"text": ["Oil up", "Talks"], "label": [2, 0]}
        Dataset.from_dict(rows).to_parquet(str(tmp_path / f"{split}-00000-of-00001.parquet"))
    found = load("agnews", str(tmp_path), tokens=Tokens(6))
    assert found.y_test.tolist() == [2, 0]
    assert np.array_equal(found.x_test, Tokens(6).ids(["Oil up", "Talks"]))


@pytest.mark.parametrize("row", ["5,a,b", "x,a,b", "1,a", ""])
def test_a_damaged_csv_is_refused(tmp_path, row):
    write_csv(tmp_path)
    (tmp_path / "test.csv").write_text(row)
    with pytest.raises(UserError, match=r"dataset='agnews' .*test\.csv"):
        load("agnews", str(tmp_path))


def test_where_files_are_expected_is_said(tmp_path):
    with pytest.raises(UserError, match=r"data-dir=.*train\.csv and test\.csv.*download=true"):
        load("agnews", str(tmp_path))


def archive(tmp_path, **changed):
    arrays = {
        "text_train": np.array(["one text", "two"]),
        "y_train": np.array([0, 1]),
        "text_test": np.array(["three"]),
        "y_test": np.array([1]),
        "class_names": np.array(["a", "b"]),
    } | changed
    np.savez(tmp_path / "t.npz", **{name: one for name, one in arrays.items() if one is not None})
    return f"npz:{tmp_path / 't.npz'}"


def test_texts_of_an_archive(tmp_path):
    found = load(archive(tmp_path), tokens=Tokens(4))
    assert np.array_equal(found.x_train, Tokens(4).ids(["one text", "two"]))
    assert found.y_test.tolist() == [1]


@pytest.mark.parametrize(
    "changed",
    [
        {"text_test": None},
        {"text_train": np.array([1, 2])},
        {"y_train": np.array([0])},
        {"text_test": np.array([], dtype="U3"), "y_test": np.array([], dtype=int)},
    ],
)
def test_a_wrong_archive_of_texts_is_refused(tmp_path, changed):
    with pytest.raises(UserError, match="dataset='npz:"):
        load(archive(tmp_path, **changed))


def test_load_all_knows_tokens(tmp_path):
    assert load_all(archive(tmp_path), tokens=Tokens(3)).input_shape == (3,)


@pytest.fixture
def pretrained(tmp_path):
    pytest.importorskip("transformers", reason="the extra [text] is not installed")
    return Path(small_bert(tmp_path / "bert"))


def test_a_pretrained_tokenizer_pads_and_cuts_off(pretrained):
    ids = Tokens(6, str(pretrained)).ids(["oil BANK", "oil " * 9])
    assert ids.tolist() == [[2, 5, 6, 3, 0, 0], [2, 5, 5, 5, 5, 3]]


def test_how_a_tokenizer_was_saved_to_pad_and_cut_off_is_not_asked(pretrained):
    edit(
        pretrained / "tokenizer.json",
        padding={
            "strategy": {"Fixed": 12},
            "direction": "Left",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
        truncation={
            "direction": "Left",
            "max_length": 3,
            "strategy": "LongestFirst",
            "stride": 0,
        },
    )
    ids = Tokens(6, str(pretrained)).ids(["oil BANK", "oil " * 9])
    assert ids.tolist() == [[2, 5, 6, 3, 0, 0], [2, 5, 5, 5, 5, 3]]


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_a_folder_without_a_tokenizer_is_refused(pretrained, damage):
    """Made anew it would know no word, and all texts would be alike."""
    tokenizer = pretrained / "tokenizer.json"
    written = tokenizer.read_text()
    tokenizer.unlink()
    if damage == "cut short":
        tokenizer.write_text(written[:300])
    with pytest.raises(UserError, match=r"pretrained=.*a folder or a name with a tokenizer") as one:
        Tokens(6, str(pretrained)).ids(["oil"])
    assert "\n" not in str(one.value)


def test_what_is_not_there_is_said_before_anything_starts(tmp_path):
    settings = {"dataset": archive(tmp_path), "model": "bert", "forget": ""}
    config = RunConfig.from_mapping({**settings, "pretrained": str(tmp_path / "missing")})
    with pytest.raises(UserError, match=r"pretrained='.*missing' .*\(there is none\)$"):
        prepare(config, 1)


def test_a_tokenizer_of_other_weights_is_refused_before_anything_starts(pretrained, tmp_path):
    small_bert(pretrained, more_words=[f"word{number}" for number in range(90)])
    texts = archive(tmp_path, text_train=np.array(["oil word80", "bank"]))
    settings = {"dataset": texts, "model": "bert", "forget": "", "text-length": 4}
    config = RunConfig.from_mapping({**settings, "pretrained": str(pretrained)})
    with pytest.raises(UserError, match=r"pretrained=.*they know 64 tokens, one has id 94"):
        prepare(config, 1)
