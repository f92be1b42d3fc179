"""The client of SplitWiper (the clients' lines of Algorithms 1 and 2)."""

from __future__ import annotations

import copy

from torch import nn

from split_unlearning.clients.acting import action
from split_unlearning.clients.alone import local_head, pretrain, slices_of, train_alone
from split_unlearning.clients.base import SplitClient
from split_unlearning.transport.message import Message
from split_unlearning.unlearning.methods import StagedMethod


class SplitWiperClient(SplitClient):
    """Trains its segment alone, freezes it, uploads its smashed data once."""

    @action
    def pretrain(self, message: Message) -> Message:
        """Initialise, train for N epochs on the client's own data, freeze, send."""
        return self._pretrain_from(first=0)

    @property
    def _slices(self) -> int:
        return self.options.integer("slices")

    def _pretrain_from(self, first: int) -> Message:
        shared = self.options["client-init"] == "shared"
        segment = self.fresh_segment("shared" if shared else None)
        answer = self._freeze(segment, pretrain(self, segment, self._slices, first))
        answer.fields["first-slice"] = first
        return answer

    @action
    def forget(self, message: Message) -> Message:
        """Remove the forgotten samples and repeat `pretrain`; no other client is needed.

        With slices it starts from the step before the first slice with forgotten samples. A method
        in stages continues from the kept segment and local head instead.
        """
        about = self.forget_samples(message).number
        method = self.setting.method
        if not isinstance(method, StagedMethod):
            touched = slices_of(self, self.meant_by(about), self._slices)
            return self._pretrain_from(first=int(touched.min(initial=self._slices - 1)))
        segment = self.kept_segment()
        if self.asked_again:
            return self.upload_chunk(segment, "train", chunk=0)
        head = local_head(self, segment)
        head.load_state_dict(self.state.load("local-head") or {})
        for stage in method.stages():
            train_alone(self, segment, head, stage, about, self._teachers(segment, head))
        return self._freeze(segment, head)

    def _teachers(self, segment: nn.Module, head: nn.Module) -> dict[str, nn.Module]:
        """Return the frozen networks that an objective may ask."""
        untrained = self.fresh_segment("incompetent")
        return {
            "original": copy.deepcopy(nn.Sequential(segment, head)),
            "incompetent": nn.Sequential(untrained, local_head(self, untrained, "incompetent")),
        }

    def _freeze(self, segment: nn.Module, head: nn.Module) -> Message:
        """Keep the segment, and the local head if a method may need it; return the smashed data."""
        self.keep_segment(segment)
        if isinstance(self.setting.method, StagedMethod):
            self.state.save("local-head", head.state_dict())
        return self.upload_chunk(segment, "train", chunk=0)
