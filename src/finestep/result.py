"""StudyResult: what a study leaves behind, in figures; the one schema of `result.json`, of `--json` and of Python's `Study`.

Values only, JSON both ways. What is shown of them is written in `studies/words.py` and `cli/card.py`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from finestep.answer import Answer
from finestep.disk import json_text, read_object
from finestep.study import Goal, StartingPoint
from finestep.study_layout import RESULT
from finestep.trial import TrialState

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""JSON has no NaN: it is written as null, and null is read as NaN."""


class _Value(BaseModel):
    """Fields that another version adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class _Sparse(_Value):
    """Fields that are None are left out of the JSON."""

    @model_serializer(mode="wrap")
    def _without_none(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {name: value for name, value in handler(self).items() if value is not None}


class AskedFigures(_Value):
    """What a trial was asked to run. Batches follow one rule: effective = micro x accumulation x devices."""

    trial: int = Field(description="Its number.")
    stage: str = Field("", description="Why it was tried, in the words of the search.")
    is_baseline: bool = Field(False, description="The conservative default, run to compare with.")
    asked_by: Literal["user", "search"] = Field("search", description="`user`: added by hand.")
    fidelity: float = Field(1.0, description="Share of the full token budget.")
    learning_rate: float = Field(description="Peak learning rate, after warmup.")
    effective_batch_size: int = Field(description="Rows of an optimizer step.")
    micro_batch_size: int = Field(description="Rows of a forward pass on one device.")
    accumulation_steps: int = Field(description="Forward passes of an optimizer step.")
    num_devices: int = Field(1, description="Devices that a trial spans.")
    tuned: dict[str, JsonValue] = Field(default_factory=dict, description="Further searched fields, by dotted name.")


class TrialFigures(AskedFigures):
    """A trial in figures: what was asked, and how it ended."""

    state: TrialState = Field(description="How it ended; `running`: under way, or it goes on when its study does.")
    eval_loss: float | None = Field(None, description="Best validation loss in nats; None: no result.")
    base_eval_loss: float | None = Field(None, description="Before the first step.")
    metrics: dict[str, Number] = Field(default_factory=dict, description="Further metrics on the validation rows.")
    kl_at_end: float | None = Field(None, description="KL from the base, nats a token; None: not watched.")
    forgets_too_much: bool = Field(False, description="It ended further from the base than the study allows.")
    reason: str = Field("", description="Why it ended, in words.")
    stopped_by_hand: bool = Field(False, description="What it measured is not the end of its schedule.")
    log: str | None = Field(None, description="Where the whole traceback of a failed trial is.")
    folder: str = Field("", description="Where its files are; `finestep diagnose` reads its course there.")
    num_train_tokens: int = Field(0, description="Training tokens that it has seen.")
    seconds: float = Field(0.0, description="Time that it took, over all its sessions.")

    @property
    def batch_words(self) -> str:
        """The effective batch as a product.

        >>> asked = {"trial": 0, "state": "completed", "learning_rate": 1e-4, "effective_batch_size": 32}
        >>> TrialFigures(**asked, micro_batch_size=8, accumulation_steps=4).batch_words
        '32 = micro-batch 8 x 4 accumulated x 1 device'
        """
        return (
            f"{self.effective_batch_size} = micro-batch {self.micro_batch_size} x {self.accumulation_steps} accumulated "
            f"x {self.num_devices} device" + ("s" if self.num_devices > 1 else "")
        )


class Spent(_Value):
    """What a study has cost."""

    full_runs: float = Field(0.0, description="In runs of full length.")
    budget_full_runs: float | None = Field(None, description="Most that it may cost.")
    tokens: int = Field(0, description="Training tokens of all trials.")
    elapsed_s: float = Field(0.0, description="By the clock, as if no process had ever waited for another.")


class Paths(_Sparse):
    """Where things are; None for what is not there, which the JSON leaves out.

    >>> Paths(study="s", report="s/report.html").model_dump()
    {'study': 's', 'report': 's/report.html'}
    """

    study: str = Field("", description="Folder of the study.")
    report: str = Field("", description="The page for people.")
    recipe: str | None = Field(None, description="The recipe that was found.")
    config: str | None = Field(None, description="Somebody's own config with the found values, after `--with`.")
    model: str | None = Field(None, description="Folder of the chosen model or adapter.")


class StudyGoal(_Value):
    """What was to be made best."""

    name: str = Field("eval_loss", description="Which metric.")
    goal: Goal = Field("minimize", description="Whether less or more of it is better.")
    prefer: Literal["quality", "speed"] = Field(
        "quality", description="`speed`: a faster batch size may cost a little."
    )


class Forgetting(_Value):
    """How far the chosen trial ended from the base."""

    limit: float | None = Field(None, description="Most KL that the study allows, nats a token; None: only watched.")
    kl_at_end: float | None = Field(None, description="KL from the base at the end, nats a token.")
    sentence: str = Field("", description="What to say when no trial ended within the limit.")


class ChosenFinding(_Value):
    """What `finestep diagnose` says of the chosen trial."""

    code: str = Field(description="A word for programs.")
    label: str = Field(description="The kind of finding.")
    meaning: str = Field(description="What is seen.")
    advice: str = Field("", description="What to do about it.")
    num_epochs: float | None = Field(None, description="Passes over the rows of a full run.")


class DataSummary(_Value):
    """What a person should know of the data beside the answer."""

    notes: tuple[str, ...] = Field((), description="What to tell the user of the data.")
    num_eval_rows: int | None = Field(None, description="Rows that losses are measured on.")


class WrittenAnswer(_Value):
    """A validation row: what was asked, what the tuned model writes, and what the data say."""

    prompt: str = Field(description="What was asked.")
    answer: str = Field(description="What the tuned model writes.")
    expected: str = Field(description="What the data say.")


class LabelAnswer(_Value):
    """A validation row of a classifier."""

    text: str = Field(description="The row.")
    predicted: str = Field(description="The label that the tuned model gives.")
    true: str = Field(description="The label of the data.")


RowAnswer = WrittenAnswer | LabelAnswer


class SavedCheck(_Sparse):
    """Whether the saved model, loaded again, has the loss that training measured."""

    checked: bool = Field(description="False: it could not be loaded again here, and `sentence` says why.")
    agrees: bool | None = Field(None, description="The loaded model has the measured loss.")
    sentence: str = Field(description="The same in words.")
    num_rows: int | None = Field(None, description="Rows that it was measured on.")
    measured_loss: float | None = Field(None, description="Loss of training on these rows.")
    reloaded_loss: float | None = Field(None, description="Loss of the loaded model on them.")
    tolerance: float | None = Field(None, description="Difference of the two that counts as none.")
    seconds: float | None = Field(None, description="Time that the check took.")


class HowToLoad(_Sparse):
    """Where the tuned model is, the Python that loads it, and the command that merges an adapter into its base."""

    folder: str = Field(description="Where the tuned model is.")
    load: tuple[str, ...] = Field(description="Lines of Python that load it.")
    merge: str | None = Field(None, description="The command that merges an adapter into its base.")


class Standing(_Value):
    """How the trials of a study stand: what leads, what the search believes, what was spent."""

    objective: StudyGoal = Field(StudyGoal(), description="The metric that the study makes best.")
    baseline: TrialFigures | None = Field(None, description="The usual default, where it was run.")
    best: TrialFigures | None = Field(None, description="The chosen trial; None while no full run has ended.")
    leader: TrialFigures | None = Field(None, description="The trial that measured best, where another was chosen.")
    answer: Answer | None = Field(None, description="What the search believes; None for a sweep or a single run.")
    settled: bool | None = Field(None, description="The best full run stands between worse ones; None: no search.")
    next_command: str | None = Field(None, description="The command that goes on with a study that is not settled.")
    trials: tuple[TrialFigures, ...] = Field((), description="All trials in the order of asking.")
    spent: Spent = Field(Spent(), description="What the study has cost.")
    command: str = Field("", description="The command that repeats or continues the study.")


class StudyResult(Standing):
    """Everything that a study leaves behind, in figures."""

    paths: Paths = Field(Paths(), description="Where things are.")
    facts: dict[str, str | int | float] = Field(default_factory=dict, description="Model, data, machine, versions.")
    start: StartingPoint | None = Field(None, description="What was believed before the first trial.")
    data: DataSummary = Field(DataSummary(), description="What to know of the data beside the answer.")
    memory: tuple[str, ...] = Field((), description="What was done in the chosen trial because memory was short.")
    finding: ChosenFinding | None = Field(None, description="What the log of the chosen trial says.")
    forgetting: Forgetting | None = Field(None, description="None: it was not watched.")
    saved: SavedCheck | None = Field(None, description="Whether the saved model was loaded again and agrees.")
    answers: tuple[RowAnswer, ...] = Field(
        (), description="Some validation rows with what the tuned model makes of them."
    )
    use: HowToLoad | None = Field(None, description="How the tuned model is loaded.")
    model_note: str | None = Field(None, description="What is wrong with the saved model.")
    shown: tuple[str, ...] = Field((), description="What `report` has to say about the files themselves.")

    def as_json(self, *, indent: int | None = None) -> str:
        """The text of `result.json` and of `--json`; a number that is not finite is null."""
        return json_text(self.model_dump(), indent=indent)

    def as_values(self) -> dict[str, JsonValue]:
        """The same as plain values, for whoever has no use for types."""
        return dict(json.loads(self.as_json()))

    @property
    def has_answer(self) -> bool:
        """True when a trial was chosen, or a rate is predicted."""
        return self.best is not None or (self.answer is not None and self.answer.learning_rate is not None)


def read_result(folder: Path) -> StudyResult | None:
    """The result of a study as its folder keeps it; None before the first one, and when the file is damaged."""
    found = read_object(folder / RESULT)
    if not found:
        return None
    try:
        return StudyResult.model_validate_json(json.dumps(found))
    except ValidationError:
        return None
