"""The pretrained network that a run begins with: whether its parts fit, and which one it is."""

from __future__ import annotations

import hashlib

from split_unlearning.foundations.errors import refuse
from split_unlearning.models.bert import pretrained_bert
from split_unlearning.simulations.config import RunConfig
from split_unlearning.simulations.data.dataset import Samples
from split_unlearning.unlearning.exactness import digest

# What else than weights and their shapes decides what a BERT computes.
_COMPUTED_WITH = ("hidden_act", "layer_norm_eps", "num_attention_heads")


def check_tokens_known(config: RunConfig, dataset: Samples) -> None:
    """Refuse a tokenizer with ids that the pretrained weights have no vector for.

    Raises
    ------
    UserError
        With the first of them.
    """
    if not config.pretrained:
        return
    known = int(pretrained_bert(config.pretrained, config.cut_model().download).config.vocab_size)
    largest = max(int(x.max()) for task in dataset.tasks for x in (task.x_train, task.x_test))
    if largest >= known:
        allowed = f"a tokenizer of these weights (they know {known} tokens, one has id {largest})"
        raise refuse("pretrained", config.pretrained, allowed)


def pretrained_digest(config: RunConfig) -> str:
    """Return a SHA-256 of the pretrained weights and of the tokenizer's vocabulary.

    It is empty if the run begins with random weights. Another place or name of the same network
    changes nothing. Exactness is a claim about these, too: retraining begins with them. Whatever
    else a tokenizer does shows in the token ids, which `preparation.fingerprint` covers.

    Raises
    ------
    UserError
        If weights or tokenizer are not to be had.
    """
    if not config.pretrained:
        return ""
    model = pretrained_bert(config.pretrained, config.cut_model().download)
    computed_with = [getattr(model.config, name) for name in _COMPUTED_WITH]
    vocabulary = sorted(config.tokens().vocabulary().items())
    sha = hashlib.sha256(digest(model.state_dict()).encode())
    sha.update(repr((computed_with, vocabulary)).encode())
    return sha.hexdigest()
