"""BERT (Devlin et al. 2019), behind the extra ``[text]``: a row of blocks that read token ids."""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.foundations.once import once
from split_unlearning.models.inputs import Shape, described, is_text
from split_unlearning.models.network import Network
from split_unlearning.models.tokens import PADDING, MeanOfTokens, present

if TYPE_CHECKING:
    from transformers import BertModel

VOCABULARY = 4096
"""Number of token ids of a network without pretrained weights, as of its tokenizer."""

_HIDDEN, _BLOCKS, _HEADS = 32, 3, 2

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def bert(
    input_shape: Shape, num_labels: int, pretrained: str = "", download: bool = False
) -> Network:
    """BERT's embeddings and blocks, the mean over tokens, and a linear layer; cut after `block1`.

    The layers are ``embeddings``, ``block1`` and so on, ``pool``, ``head``. The smashed data of a
    text have shape (length, hidden), with padding as zero vectors, see `models.tokens`. There is no
    dropout on either side: a client segment has to be deterministic, and without dropout both sides
    together compute what the unsplit network does.

    `input_shape` is (length,), the tokens of a text. `pretrained` is a folder with ``config.json``
    and weights of a BERT, or its name on the Hugging Face hub, which may be asked with `download`
    for files that are not on this machine. By default it is a small BERT with random weights: 3
    blocks of width 32, ids below `VOCABULARY`.

    Raises
    ------
    UserError
        If samples are no texts or too long, transformers is not installed, or the weights cannot be
        had or are no BERT's.
    """
    if not is_text(input_shape):
        allowed = f"a model for images (the samples are {described(input_shape)})"
        raise refuse("model", "bert", allowed)
    model = copy.deepcopy(pretrained_bert(pretrained, download)) if pretrained else _small()
    longest = model.config.max_position_embeddings
    if input_shape[0] > longest:
        raise refuse("text-length", input_shape[0], f"at most {longest}, what this BERT can place")
    _without_dropout(model)
    layers: OrderedDict[str, nn.Module] = OrderedDict(embeddings=_Embeddings(model.embeddings))
    for number, block in enumerate(model.encoder.layer, start=1):
        layers[f"block{number}"] = _Block(block)
    layers["pool"] = MeanOfTokens()
    layers["head"] = nn.Linear(model.config.hidden_size, num_labels)
    return Network(layers, cut="block1")


def transformers() -> Any:
    """Return the package transformers.

    Raises
    ------
    UserError
        If it is not installed.
    """
    try:
        # The import takes seconds, and only texts need it.
        import transformers as package
    except ImportError as error:
        raise UserError(
            "model='bert' needs transformers; pip install 'split-unlearning[text]'"
        ) from error
    return package


def _small() -> BertModel:
    package = transformers()
    config = package.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=_HIDDEN,
        num_hidden_layers=_BLOCKS,
        num_attention_heads=_HEADS,
        intermediate_size=4 * _HIDDEN,
        pad_token_id=PADDING,
    )
    config._attn_implementation = "eager"
    model: BertModel = package.BertModel(config, add_pooling_layer=False)
    return model


# Read once, copied for each segment.
@once(maxsize=1)
def pretrained_bert(name: str, download: bool = False) -> BertModel:
    """Return a published BERT without a pooling layer; a process keeps the last one that it read.

    Copy the network before changing its weights. Errors are those of `bert`.
    """
    check_there(name)
    package, local = transformers(), {"local_files_only": not download}
    kind = _read(package.AutoConfig, name, **local).model_type
    if kind != "bert":
        raise refuse("pretrained", name, f"a BERT (this is of the kind {kind!r})")
    model: BertModel
    model, report = _read(
        package.BertModel,
        name,
        add_pooling_layer=False,
        dtype=torch.float32,
        # Fused kernels need not be deterministic in their backward pass.
        attn_implementation="eager",
        # Weights in another format than safetensors are programs.
        use_safetensors=True,
        output_loading_info=True,
        **local,
    )
    # Each side would draw missing weights at random.
    if report["missing_keys"]:
        allowed = f"a BERT with all its weights (there is no {min(report['missing_keys'])})"
        raise refuse("pretrained", name, allowed)
    if (model.config.pad_token_id or 0) != PADDING:
        raise refuse("pretrained", name, f"a BERT whose padding has the id {PADDING}")
    return model


def _read(kind: Any, name: str, **how: Any) -> Any:
    try:
        with quiet():
            return kind.from_pretrained(name, **how)
    except Exception as error:  # a stranger's files may raise anything
        where = "a folder" if Path(name).is_absolute() else "a folder, or with download=true a name"
        reason = " ".join(str(error).split())[:200]
        allowed = f"{where} with config.json and model.safetensors of a BERT ({reason})"
        raise refuse("pretrained", name, allowed) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what transformers prints in each process that loads a network, but for errors."""
    log = transformers().utils.logging
    verbosity, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bar:
            log.enable_progress_bar()


def is_hub_name(name: str) -> bool:
    """Say whether this can be a name on the Hugging Face hub; a path cannot."""
    return _HUB_NAME.fullmatch(name) is not None


def check_there(name: str) -> None:
    """Refuse a missing folder, and a relative path, which means nothing in another process.

    Raises
    ------
    UserError
        If this is neither a folder nor a possible name on the Hugging Face hub.
    """
    if Path(name).is_absolute():
        if not Path(name).is_dir():
            allowed = "a folder with weights and tokenizer of a BERT (there is none)"
            raise refuse("pretrained", name, allowed)
    elif Path(name).exists() or not is_hub_name(name):
        allowed = "an absolute path, or a name on the hub: a run has no current folder of yours"
        raise refuse("pretrained", name, allowed)


def _without_dropout(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0


class _Embeddings(nn.Module):
    def __init__(self, embeddings: nn.Module) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.embeddings(input_ids=ids)
        return vectors * (ids != PADDING).unsqueeze(-1)


class _Block(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        text = present(vectors)
        unseen = torch.finfo(vectors.dtype).min
        mask = torch.zeros_like(text, dtype=vectors.dtype).masked_fill(~text, unseen)
        read: torch.Tensor = self.block(vectors, attention_mask=mask[:, None, None, :])
        return read * text.unsqueeze(-1)
