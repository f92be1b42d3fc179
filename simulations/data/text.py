"""Texts as token ids of one length, before anybody holds any of them.

Without pretrained weights a word's id follows from the word alone, by hashing it. A vocabulary that
is learned from texts would carry a trace of every one of them, forgotten ones included.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from split_unlearning.foundations.errors import UserError, refuse
from split_unlearning.foundations.options import Option, positive
from split_unlearning.models.bert import VOCABULARY, check_there, is_hub_name, quiet, transformers
from split_unlearning.models.tokens import PADDING

_WORD = re.compile(r"\w+|[^\w\s]")
# Apart from padding, no id has a meaning of its own.
_FIRST = PADDING + 1


TEXT_OPTIONS = {
    "text-length": positive(64, "tokens of a text; longer ones are cut off"),
    "pretrained": Option(
        "",
        "an absolute path to a folder, a name on the hub, or empty for a small random BERT",
        lambda value: not value or Path(value).is_absolute() or is_hub_name(value),
        "weights and tokenizer that bert begins with; download=true may ask the hub for them",
    ),
}
"""The settings of a run on texts."""


@dataclass(frozen=True)
class Tokens:
    """How texts become token ids.

    Parameters
    ----------
    length : int
        Ids of a text: what is longer is cut off, what is shorter is padded.
    pretrained : str
        The tokenizer that belongs to these weights; by default each word and mark is hashed.
    download : bool
        Whether the Hugging Face hub may be asked for it.
    """

    length: int = 64
    pretrained: str = ""
    download: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """What the tokenizer is read from, as far as it lies in a folder of the user's."""
        folder = Path(self.pretrained)
        if not folder.is_absolute():
            return ()
        known = ("tokenizer*.json", "vocab.txt", "special_tokens_map.json")
        return tuple(sorted(path for pattern in known for path in folder.glob(pattern)))

    def of(self, texts: Sequence[str]) -> NDArray[np.int32]:
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

    def vocabulary(self) -> dict[str, int]:
        """Return the id of each token that the pretrained tokenizer knows.

        Raises
        ------
        UserError
            If the tokenizer is not to be had.
        """
        words: dict[str, int] = self._tokenizer().get_vocab()
        return words

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
