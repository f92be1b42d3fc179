"""A strategy whose clients never train, and an unlearning method that teaches wrong labels."""

from typing import ClassVar

import torch

import split_unlearning as su


class Sums(su.ServerPart):
    """Keeps the sum of each client's smashed data beside the server segment, wherever that runs."""

    @su.frame
    def sum(self, client: int, tensors: dict[str, torch.Tensor], _: str) -> dict[str, torch.Tensor]:
        """Keep a sum, and answer with how far it is from the one before."""
        before = self.kept.load(f"sum-{client}") or tensors
        self.kept.save(f"sum-{client}", tensors)
        return {"moved": (tensors["sum"] - before["sum"]).norm(keepdim=True)}


class FrozenFeatures(su.SplitStrategy):
    """Clients upload random features, clipped, once; the server alone learns; forgets exactly."""

    client = "frozen_features:FrozenFeaturesClient"
    server_parts = (Sums,)
    own_options: ClassVar = {"clip": su.Option(1.0, "a number > 0", lambda value: value > 0)}

    def learn(self, clients: list[int] | None = None) -> su.Script:
        """Have clients upload, by default all; train a fresh server segment on all that came."""
        link = self.server.call(su.ServerLink.open)
        yield from self.collect(self.ask(clients or self.clients, "draw", **link))
        self.server.call(su.ServerModel.initialise)
        for epoch in range(self.training.server_epochs):
            self.server.call(su.Shards.train, epoch)

    def unlearn(self, requests: dict[int, su.Request]) -> su.Script:
        """Do so again, where only those that forget upload again."""
        yield self.ask_to_forget(requests, "leave-out")
        yield from self.learn(list(requests))


class FrozenFeaturesClient(su.SplitClient):
    """Keeps the segment that it draws, and clips what leaves it."""

    @su.action
    def draw(self, message: su.Message) -> su.Message:
        """Keep a fresh segment, the same one each time; upload the samples that there are."""
        self.keep_segment(self.fresh_segment())
        bottom, x = self.bottom(self.kept_segment()), self.holding.x
        with self.connect(message) as link:
            link.exchange({"sum": self.smashed(bottom, x, 0, len(x)).sum(dim=0)}, {"sum": ""})
        return self.upload_chunk(self.kept_segment(), "train", chunk=0)

    def bottom(self, segment: torch.nn.Module) -> torch.nn.Module:
        """Return what images enter and smashed data leave: every upload passes through it."""
        clip = self.options.number("clip")
        return torch.nn.Sequential(segment, torch.nn.Hardtanh(-clip, clip))


class WrongLabels(su.CrossEntropy):
    """Learn labels that are not the samples' own; which, follows from their ids."""

    def targets(self, batch: su.Batch, logits_of: su.LogitsOf) -> dict[str, torch.Tensor]:
        """Return the wrong labels: this half is the client's, the loss is where the logits are."""
        shift = 1 + torch.from_numpy(batch.ids) % (batch.num_labels - 1)
        return {"labels": (batch.labels + shift) % batch.num_labels}


class Relabel(su.FineTuning):
    """Learn wrong labels for the forgotten samples, then train on without them."""

    own_options: ClassVar = {"relabel-epochs": su.Option(3, "an integer > 0", lambda n: n > 0)}

    def stages(self) -> tuple[su.Stage, ...]:
        """Return one stage on the forgotten samples, then one on the retained."""
        epochs = self.options.integer("relabel-epochs")
        relabel = su.Stage("relabel", epochs, "forgotten", WrongLabels())
        return relabel, *super().stages()
