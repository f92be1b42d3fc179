"""Texts as token ids of one length, before anybody holds any of them.

Without pretrained weights a word's id follows from the word alone, by hashing it. A vocabulary that
is learned from texts would carry a trace of every one of them, forgotten ones included.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.foundations.options import Option, Settings, Value, positive, setting
from split_unlearning.models.bert import (
    VOCABULARY,
    check_there,
    is_hub_name,
    pretrained_bert,
    quiet,
    transformers,
)
from split_unlearning.models.tokens import PADDING
from split_unlearning.simulations.data.dataset import Samples
from split_unlearning.unlearning.exactness import digest

_WORD = re.compile(r"\w+|[^\w\s]")
# Apart from padding, no id has a meaning of its own.
_FIRST = PADDING + 1

# What else than weights and their shapes decides what a BERT computes.
_COMPUTED_WITH = ("hidden_act", "layer_norm_eps", "num_attention_heads")


@dataclass(frozen=True)
class Tokens(Settings):
    """How texts become token ids.

    A shorter text than `length` is padded. The tokenizer belongs to the `pretrained` weights, for
    which the Hugging Face hub may be asked with `download`; without any each word and mark is
    hashed.
    """

    length: int = setting(positive(64, "tokens of a text; longer ones are cut off"), "text-length")
    pretrained: str = setting(
        Option(
            "",
            "an absolute path to a folder, a name on the hub, or empty for a small random BERT",
            lambda value: not value or Path(value).is_absolute() or is_hub_name(value),
            "weights and tokenizer that bert begins with; download=true may ask the hub for them",
        )
    )
    download: bool = False

    @classmethod
    def of(cls, options: Mapping[str, Value], /, **others: Any) -> Self:
        """Return what settings ask for; only for pretrained weights is anything fetched."""
        download = bool(options["pretrained"]) and options["download"]
        return super().of(options, download=download, **others)

    @classmethod
    def check_unused(cls, options: Mapping[str, Value], why: str) -> None:
        """Refuse settings of texts where there are none.

        Raises
        ------
        UserError
            With the first setting that is not at its default.
        """
        for key, option in cls.declared().items():
            if options[key] != option.default:
                raise refuse(key, options[key], f"{option.default!r} ({why})")

    @property
    def files(self) -> tuple[Path, ...]:
        """What the tokenizer is read from, as far as it lies in a folder of the user's."""
        folder = Path(self.pretrained)
        if not folder.is_absolute():
            return ()
        known = ("tokenizer*.json", "vocab.txt", "special_tokens_map.json")
        return tuple(sorted(path for pattern in known for path in folder.glob(pattern)))

    def ids(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Return the ids of some texts, shape (texts, length).

        Raises
        ------
        UserError
            If the tokenizer is not to be had.
        """
        ids = np.full((len(texts), self.length), PADDING, dtype=np.int32)
        coded = self._pretrained(texts) if self.pretrained else map(_hashed, texts)
        for row, words in zip(ids, coded, strict=True):
            words = words[: self.length]
            row[: len(words)] = words
        return ids

    def check_known(self, dataset: Samples) -> None:
        """Refuse a tokenizer with ids that the pretrained weights have no vector for.

        Raises
        ------
        UserError
            With the first of them.
        """
        if not self.pretrained:
            return
        known = int(pretrained_bert(self.pretrained, self.download).config.vocab_size)
        largest = max(int(x.max()) for task in dataset.tasks for x in (task.x_train, task.x_test))
        if largest >= known:
            those = f"they know {known} tokens, one has id {largest}"
            allowed = f"a tokenizer of these weights ({those})"
            raise refuse("pretrained", self.pretrained, allowed)

    def pretrained_digest(self) -> str:
        """Return a SHA-256 of the pretrained weights and of the tokenizer's vocabulary.

        It is empty if the run begins with random weights. Another place or name of the same network
        changes nothing. Exactness is a claim about these, too: retraining begins with them.
        Whatever else a tokenizer does shows in the token ids, which `preparation.fingerprint`
        covers.

        Raises
        ------
        UserError
            If weights or tokenizer are not to be had.
        """
        if not self.pretrained:
            return ""
        model = pretrained_bert(self.pretrained, self.download)
        computed_with = [getattr(model.config, name) for name in _COMPUTED_WITH]
        vocabulary = sorted(self._tokenizer().get_vocab().items())
        sha = hashlib.sha256(digest(model.state_dict()).encode())
        sha.update(repr((computed_with, vocabulary)).encode())
        return sha.hexdigest()

    def _pretrained(self, texts: Sequence[str]) -> list[list[int]]:
        tokenizer = self._tokenizer()
        # Some are saved with a padding of their own.
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
        coded = tokenizer(list(texts), padding=False, truncation=True, max_length=self.length)
        ids: list[list[int]] = coded["input_ids"]
        return ids

    def _tokenizer(self) -> Any:
        check_there(self.pretrained)
        try:
            with quiet():
                tokenizer = transformers().AutoTokenizer.from_pretrained(
                    self.pretrained, local_files_only=not self.download
                )
        except UserError:
            raise
        except Exception as error:  # a stranger's files may raise anything
            reason = " ".join(str(error).split())[:200]
            allowed = f"a folder or a name with a tokenizer ({reason})"
            raise refuse("pretrained", self.pretrained, allowed) from error
        # Without its files it is made anew, and knows no word.
        if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
            allowed = "a folder or a name with a tokenizer (there is no vocabulary)"
            raise refuse("pretrained", self.pretrained, allowed)
        return tokenizer


def _hashed(text: str) -> list[int]:
    words = _WORD.findall(text.lower()) or [""]
    return [_FIRST + zlib.crc32(word.encode()) % (VOCABULARY - _FIRST) for word in words]
