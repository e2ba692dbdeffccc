"""What the scheduler tells of inputs that no worker sees: cancelled while they waited, or given up."""

import time

from tidemill._wire.calls import InputRecord, State, runs_of
from tidemill._wire.control import CancelCall
from tidemill._wire.messages import Chunk
from tidemill_common.records import Recorder, reason_of
from tidemill_scheduler.pools import Directory

UNKNOWN = "unknown"  # the app of a pool that this replica never saw; the registry knows


class Records:
    """The records of one replica."""

    def __init__(self, recorder: Recorder, directory: Directory) -> None:
        self._recorder = recorder
        self._directory = directory

    def ended(self, workspace: str, pool: str, chunk: Chunk, state: State, told: bytes) -> None:
        """Tell that the inputs of a chunk have ended without having run."""
        self._tell(workspace, pool, chunk, runs_of(chunk.indices), state, time.time(), reason_of(told))

    def cancelled(self, workspace: str, pool: str, request: CancelCall) -> None:
        """Tell that a call was cancelled: whatever of it has not finished has ended."""
        chunk = Chunk(request.call, [], 0, "", [], 0.0, method=request.method)
        if request.num_inputs:
            self._tell(workspace, pool, chunk, [0, request.num_inputs], State.QUEUED, 0.0)
        self._tell(workspace, pool, chunk, [], State.CANCELLED, time.time())

    def _tell(
        self,
        workspace: str,
        pool: str,
        chunk: Chunk,
        runs: list[int],
        state: State,
        finished: float,
        reason: str = "",
    ) -> None:
        record = InputRecord(
            chunk.call, runs, state, chunk.attempt, pool, chunk.parent, chunk.root,
            "", chunk.sent, 0.0, finished, reason, method=chunk.method,
        )  # fmt: skip
        known = self._directory.pools.get(pool) or self._directory.gone.get(pool)
        self._recorder.add(workspace, known.app_id if known else UNKNOWN, record)
