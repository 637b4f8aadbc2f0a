"""Executor: where trials run. This is the contract between the tuning loop and whatever trains.

An executor takes trials and tells what becomes of them. The loop that uses it knows nothing of processes, GPUs or machines, and
relies on these promises, which `tests/executors/conformance.py` checks of every executor:

1. `start` comes first. It answers with what the trainer found (`Ready`), or with None when it was running already.
   What a user can act on is raised as a `FinestepError`; a trainer that was killed while it loaded is a `WorkerLost`,
   after which `start` may be called again.
2. `submit` hands over a trial and returns at once. Trials may be submitted at any time, also while `events` is being read.
3. `events` tells what happens until every submitted trial has ended. Each trial ends exactly once, with `finished` (its data
   are an `Outcome`) or with `interrupted` (it was asked to stop, and can be submitted again). A trial that is submitted
   while `events` is read belongs to the same reading. With nothing submitted, `events` ends at once.
4. A failed trial is no exception: it is `finished` with the state `failed`, and the others go on.
5. Two events end the reading early, and are the last ones. `died`: the trainer is gone, and the trials that have not ended
   are open; after another `start` they can be submitted again. `error`: a fault that only a user can fix, in words.
6. Before `finished` is told, the outcome is in the trial's folder as `outcome.json`, with the hash of what was asked. A
   controller that died in between finds it there.
7. A trial that was interrupted, or whose trainer died, goes on from its newest checkpoint when it is submitted again, or
   begins anew where the trainer keeps none. It never counts twice.
8. `stop` and `kill` may be called from a signal handler, at any time, and more than once. After `stop` every trial that has
   not ended is `interrupted`, those that are submitted later too.
9. `close` ends what is running in good order, and may be called more than once.
10. `stop_trial` ends one trial with what it has shown: it is `finished`, its outcome is `stopped` and says `by_hand`. The others
   go on. Where nothing happens for a moment, an `idle` event comes, so that who listens can look at what else waits.
11. `pause` is a `stop` that the next `start` takes back. An executor whose trials cannot go on where they were may let what
   runs come to its end.
12. An executor that gains or loses room while it trains says so by a further `ready` event (its data are a `Ready`). The loss of a
   machine ends no trial: it goes on elsewhere from its newest checkpoint, and a `note` says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from finestep.protocol import Event, TrialRequest
from finestep.ready import Ready


class Executor(Protocol):
    """Runs trials somewhere: `executors.local`, `executors.ray`, `executors.command`, and `executors.replay`, the twin for tests."""

    def start(self) -> Ready | None:
        """Make ready for trials, and say what was found; None when it was ready already.

        Raises:
            FinestepError: what a user can act on.
            WorkerLost: the trainer was killed while it loaded.
        """
        ...

    def submit(self, request: TrialRequest) -> None:
        """Hand over a trial; it runs while `events` is read."""
        ...

    def events(self) -> Iterator[Event]:
        """What happens, until every submitted trial has ended; `died` or `error` is the last event where one comes."""
        ...

    def stop(self) -> None:
        """Ask for checkpoints and an end; what has not ended is `interrupted`. Safe in a signal handler."""
        ...

    def pause(self) -> None:
        """Like `stop`, but `start` begins again. One that keeps no checkpoints may let what runs come to its end."""
        ...

    def stop_trial(self, number: int) -> None:
        """End one trial with what it has shown: it is `finished`, with an outcome that says `by_hand`."""
        ...

    def kill(self) -> None:
        """End everything now. Safe in a signal handler."""
        ...

    def close(self) -> None:
        """End what is running in good order, and wait for it."""
        ...
