"""Feed: the batches of a packing, on the device that trains on them.

on a CPU                      gathered when they are asked for
on a device with room         the steps are copied there once, and gathered there
on a device without           a thread gathers the next batch, and copies it from pinned memory on a stream of its
                              own, while the device trains on the one before
"""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from rlmin.data.packing import Packing

if TYPE_CHECKING:
    from tensordict import TensorDict

SHARE = 0.25
"""Share of a device's free memory that logged steps may take; the rest is for the agent."""


class Feed:
    """Endless batches of a packing on a device.

        with feed:
            batch = feed.draw()

    Inside `with`, a thread may draw the next batch while one is in use, and only the feed may use the packing. On
    leaving, the batch drawn ahead is put back. The batches are the same in any case.

    Args:
        packing: draws them.
        device: their device.
        ahead: whether the thread draws.
    """

    def __init__(self, packing: Packing, device: torch.device, *, ahead: bool) -> None:
        self.packing, self.device, self.ahead = packing, device, ahead
        self._thread: ThreadPoolExecutor | None = None
        self._next: Future[tuple[TensorDict, torch.cuda.Event | None]] | None = None
        self._place: dict[str, Tensor] = {}  # of the packing before `_next`
        self._stream: torch.cuda.Stream | None = None
        if ahead and device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        if self.ahead:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="rlmin-feed")
        return self

    def __exit__(self, *error: object) -> None:
        self._put_back()
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def draw(self) -> "TensorDict":
        """The next batch, on the device: see `Packing.draw`. After an error it is the next one still."""
        if self._thread is None:
            return self._fetch()[0]
        coming, self._next = self._next or self._thread.submit(self._fetch), None
        batch, arrived = coming.result()
        self._place = self.packing.state_dict()
        self._next = self._thread.submit(self._fetch)
        if arrived is not None:
            here = torch.cuda.current_stream(self.device)
            here.wait_event(arrived)
            for x in batch.values(include_nested=True, leaves_only=True):
                x.record_stream(here)  # its memory belongs to the stream of the copy
        return batch

    def state_dict(self) -> dict[str, Tensor]:
        """The place of the next batch in the order: see `Packing.state_dict`."""
        return self.packing.state_dict() if self._next is None else self._place

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()`."""
        self._put_back()
        self.packing.load_state_dict(state)

    def _put_back(self) -> None:
        """Bring the packing to the place of the next batch."""
        if self._next is not None:
            self._next.exception()  # waits; a failure of a batch that nobody reads is none
            self._next = None
            self.packing.load_state_dict(self._place)

    def _fetch(self) -> tuple["TensorDict", torch.cuda.Event | None]:
        """The next batch on the device, and the event after its copy where that has a stream of its own."""
        place = self.packing.state_dict()
        try:
            batch = self.packing.draw()
            if self._thread is None or self._stream is None:
                return batch.to(self.device), None
            with torch.cuda.stream(self._stream):
                batch = batch.pin_memory().to(self.device, non_blocking=True)
                return batch, self._stream.record_event()
        except BaseException:
            self.packing.load_state_dict(place)
            raise


def has_room(step: "TensorDict", device: torch.device) -> bool:
    """Whether logged steps fit into `SHARE` of the free memory of a device; a CPU reads them where they are."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return int(step.bytes()) <= SHARE * free
