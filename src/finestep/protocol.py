"""What a controller and a worker say to each other: one JSON request in, JSON lines out; it imports no other room.

A worker is started with the path of a file that holds a `SessionRequest`. It answers `ready` (or `error`), then reads
`TrialRequest`s, one JSON object a line, from its standard input and answers each with events that end in `finished` or
`interrupted`; several requests may be under way at once, and events carry their trial's number. A line
`{"kind": "stop"}`, or the end of its input, makes it write a checkpoint and end; `{"kind": "stop_trial", "trial": 3}` ends one
trial with what it has shown (state `stopped`, `by_hand`).
A trial in which something raises is `finished` too, with the state `failed` and the cause. `error` ends the session: with
the name of an error that a user can act on, all trials have been interrupted; with `WorkerFailed`, the process is lost.
Any trainer that speaks this can take the worker's place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from finestep.recipe import Recipe
from finestep.study import DataSpec, ModelSpec, RetentionSpec

PROTOCOL_VERSION = 1


OnTrouble = Literal["rollback", "stop", "ignore"]
Sharding = Literal["auto", "on", "off"]
"""Whether each device of a trial holds a part of the base, or all of it."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), ser_json_inf_nan="strings")


class ClusterRequest(_Message):
    """Where a study trains that one machine is too small for."""

    address: str = Field(description="auto, or HOST:PORT of the head of a Ray cluster.")
    workers: int | None = Field(None, ge=1, description="Most workers on all its nodes; None: one in each place.")
    grace_s: float = Field(60.0, ge=0, description="A worker that cannot be reached for so long is given up.")


class Spread(_Message):
    """How a study is spread over machines, and the base over the devices of a trial."""

    cluster: ClusterRequest | None = Field(None, description="None: train on this machine.")
    sharding: Sharding = Field("auto", description="auto: in parts only where the base does not fit on one device.")


class SessionRequest(_Message):
    """What a worker needs before its first trial: the base and the data, loaded once."""

    protocol: int = PROTOCOL_VERSION
    purpose: Literal["train", "inspect"] = Field(
        "train", description="inspect: only read the data and answer with its card."
    )
    model: ModelSpec
    data: DataSpec
    recipe: Recipe = Field(description="Method and adapter of the trials to come.")
    study_dir: str
    metrics: tuple[str, ...] = ()
    num_threads: int | None = None
    retention: RetentionSpec | None = None
    worker: int = Field(1, ge=1, description="Which worker of the study this is; the first one measures how many pay.")
    pack: int | None = Field(None, ge=1, description="Trials that share a forward pass; None: by measurement.")
    most_lanes: int = Field(8, ge=1, description="Trials that are under way at the same time, at most.")
    log: str | None = Field(None, description="The file that the worker's standard error goes to.")
    micro_batch_limit: int | None = Field(None, description="Rows of a forward pass that memory is known to allow.")
    spread: Spread = Field(Spread(), description="Over which machines, and how over the devices of a trial.")

    @property
    def num_devices(self) -> int:
        """Devices that train each trial together, a process each."""
        return self.recipe.num_devices


class TrialOptions(_Message):
    """How trials run, besides their recipe; the same for all trials of a study."""

    checkpoint_every_s: float = Field(
        45.0, ge=0, description="Time between checkpoints; 45 and 15 to bring one home are a minute."
    )
    checkpoint_every_steps: int | None = Field(None, ge=1, description="Steps between checkpoints, besides the time.")
    on_trouble: OnTrouble = Field(
        "stop",
        description="A lost run: go back to its last good state and on, end at once, or go on as if nothing were wrong.",
    )


class TrialRequest(TrialOptions):
    """One trial to run, or to take up again from its newest valid checkpoint."""

    kind: Literal["trial"] = "trial"
    number: int
    recipe: Recipe
    fidelity: float = Field(1.0, gt=0, le=1)
    folder: str = Field(description="Folder of the trial; checkpoints, outcome and model go there.")


EventKind = Literal[
    "ready", "started", "step", "evaluation", "checkpoint", "note", "finished", "interrupted", "error", "died", "idle"
]


Record = BaseModel | Mapping[str, object]
"""What an event says."""


class Emit(Protocol):
    """Who hears what a trial has to tell."""

    def __call__(self, kind: EventKind, data: Record, *, trial: int) -> None: ...


class Event(_Message):
    """One line from a worker. `died` and `idle` come from the executor: the process is gone; nothing has happened for a moment.

    A later `ready` says that more or fewer trials can be under way now than before.
    """

    kind: EventKind
    trial: int | None = None
    data: dict[str, object] = Field(default_factory=dict)
