"""What a client answers an audit: outputs, labels and fate of every sample that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from split_unlearning.clients.forgotten import Forgotten
from split_unlearning.clients.holding import Holding
from split_unlearning.transport.message import Array

TRAIN, TEST, TRIGGERED = 0, 1, 2
"""Which split a sample is of: training, test, or test with the trigger of a backdoor."""


def audited(
    whole: Holding,
    forgotten: Forgotten,
    received: Mapping[str, Array],
    probabilities: Callable[[Mapping[str, Array]], Array],
) -> dict[str, Array]:
    """Return what the model makes of each sample, and what there is to know of it.

    Parameters
    ----------
    whole : Holding
        All that the client ever held.
    forgotten : Forgotten
        What of it is forgotten.
    received : mapping of str to array
        From the server, ``test/<name>`` of the test samples and ``audit/<name>`` of what
        `Holding.audited_x` holds.
    probabilities : callable
        Makes probabilities of the labels of either.

    Returns
    -------
    dict of str to array
        ``probabilities``, float32, shape (n, labels); and int64, shape (n,): ``ids``, ``labels``,
        ``split``, and ``forgotten-by``, the number of the request that forgot it, or -1. Test
        samples come first, those with a trigger last.
    """
    found = []
    for part in ("test/", "audit/"):
        outputs = {
            name.removeprefix(part): received[name] for name in received if name.startswith(part)
        }
        found.append(probabilities(outputs).astype(np.float32))
    none = np.full(len(whole.test_ids), -1)
    test = (whole.test_ids, whole.test_y, none)
    parts = [(TEST, *test), (TRAIN, whole.ids, whole.y, forgotten.request_of(whole.ids))]
    if whole.triggered_x is not None:
        parts.append((TRIGGERED, *test))
    splits, ids, labels, by = zip(*parts, strict=True)
    return {
        "probabilities": np.concatenate(found),
        "ids": np.concatenate(ids),
        "labels": torch.cat(labels).numpy(),
        "split": np.repeat(splits, list(map(len, ids))),
        "forgotten-by": np.concatenate(by),
    }
