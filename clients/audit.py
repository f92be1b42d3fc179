"""A client's answer to an audit: outputs, labels and fate of all its samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from split_unlearning.clients.forgotten import ForgottenSamples
from split_unlearning.clients.holding import Holding
from split_unlearning.transport.message import Array

TRAIN, TEST, TRIGGERED = 0, 1, 2
"""The split of a sample: training, test, or test with the trigger of a backdoor."""


def audited(
    whole: Holding,
    forgotten: ForgottenSamples,
    received: Mapping[str, Array],
    probabilities: Callable[[Mapping[str, Array]], Array],
) -> dict[str, Array]:
    """Return the model's outputs on each sample, and the facts about it.

    The server sends ``test/<name>`` for the test samples and ``audit/<name>`` for those of
    `Holding.audited_x`; `probabilities` turns either into probabilities of the labels.

    Returns
    -------
    dict of str to array
        ``probabilities``, float32, shape (n, labels); and int64, shape (n,): ``ids``, ``labels``,
        ``split``, and ``forgotten-by``, the number of the request that forgot the sample, or -1.
        Test samples come first, triggered ones last.
    """
    outputs = []
    for part in ("test/", "audit/"):
        received_part = {
            name.removeprefix(part): received[name] for name in received if name.startswith(part)
        }
        outputs.append(probabilities(received_part).astype(np.float32))
    none = np.full(len(whole.test_ids), -1)
    test = (whole.test_ids, whole.test_y, none)
    parts = [(TEST, *test), (TRAIN, whole.ids, whole.y, forgotten.request_of(whole.ids))]
    if whole.triggered_x is not None:
        parts.append((TRIGGERED, *test))
    splits, ids, labels, by = zip(*parts, strict=True)
    return {
        "probabilities": np.concatenate(outputs),
        "ids": np.concatenate(ids),
        "labels": torch.cat(labels).numpy(),
        "split": np.repeat(splits, list(map(len, ids))),
        "forgotten-by": np.concatenate(by),
    }
