"""What a server may receive: records made for the purpose, and masked as clients mask them."""

import numpy as np

from split_unlearning.evaluation.observed import Observed


def masked(records, real, client, copies, gamma=3, noise=0.0, seed=0):
    """Return what the server observes of records of real labels, and the real label of each masked.

    `copies` is "replicate" (each record once under each masked label, with noise of its own) or
    "partition" (each under one drawn by lot).
    """
    draws = np.random.default_rng(seed)
    labels = int(real.max()) + 1
    map_of = draws.permutation(labels * gamma).reshape(labels, gamma)
    real_of = np.empty(labels * gamma, dtype=np.int64)
    real_of[map_of] = np.arange(labels)[:, None]
    if copies == "replicate":
        record, copy = np.divmod(np.arange(len(records) * gamma), gamma)
    else:
        record, copy = np.arange(len(records)), draws.integers(gamma, size=len(records))
    sent = records[record] + noise * draws.laplace(size=(len(record), records.shape[1]))
    shuffled = draws.permutation(len(record))
    return (
        Observed(
            sent.astype(np.float32)[shuffled],
            map_of[real[record], copy][shuffled],
            client[record][shuffled],
        ),
        real_of,
    )


def classes(labels, of_each, dimensions, apart, seed=0):
    """Return as many records of each real label, normal around its centre; and the labels."""
    draws = np.random.default_rng([seed, 1])
    real = np.repeat(np.arange(labels), of_each)
    centres = apart * draws.normal(size=(labels, dimensions))
    return centres[real] + draws.normal(size=(len(real), dimensions)), real


def permuted(observed, real_of, seed):
    """Return the same under other names of the masked labels, in another order of records."""
    draws = np.random.default_rng(seed)
    name, order = draws.permutation(len(real_of)), draws.permutation(len(observed.masked))
    renamed = np.empty_like(real_of)
    renamed[name] = real_of
    return (
        Observed(observed.smashed[order], name[observed.masked][order], observed.client[order]),
        renamed,
    )
