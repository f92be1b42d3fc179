"""The distributions by name."""

from __future__ import annotations

from split_unlearning.foundations.registry import Registry
from split_unlearning.simulations.data.distributions.distribution import Distribution

DISTRIBUTIONS: Registry[type[Distribution]] = Registry("distribution")

for _name, _path in {
    "homogeneous-labels": "labels:HomogeneousLabels",
    "partial-overlap": "labels:PartialOverlap",
    "heterogeneous-labels": "labels:HeterogeneousLabels",
    "iid": "labels:Stratified",
    "different-tasks": "tasks:DifferentTasks",
    "uniform": "flwr_datasets:Uniform",
    "dirichlet": "flwr_datasets:Dirichlet",
    "pathological": "flwr_datasets:Pathological",
    "shards": "flwr_datasets:SortedShards",
}.items():
    DISTRIBUTIONS.register(_name, f"{__package__}.{_path}")
