"""A link within a process."""

import io

from split_unlearning.transport import link
from split_unlearning.transport.frame import decode


class LoopbackLink(link.Link):
    """A link to a handler in the same process: same frames, counts and errors, no network."""

    def __init__(
        self,
        handler,
        ledger,
        client,
        phase,
        max_frame_bytes=link.MAX_FRAME_BYTES,
        codec="float32",
    ):
        super().__init__(codec)
        self._handler = handler
        self._ledger = ledger
        self._caller = link.Caller(client, phase)
        self._max_frame_bytes = max_frame_bytes

    def _send(self, request):
        stream = io.BytesIO(bytes(request))
        try:
            reply = link.answer(
                self._handler, self._ledger, self._caller, stream, self._max_frame_bytes
            )
        except link.RefusalError as refusal:
            reply = refusal.to_frame()
        return decode(bytes(reply))
