"""One run of a framework: its file, its process, its log as records, and what became of it."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from finestep.diagnosis.monitor import LiveMonitor
from finestep.disk import append_line, read_object, remove, write_whole
from finestep.errors import BadInput
from finestep.executors.command import exit_code_lines
from finestep.executors.detached import Detached
from finestep.executors.endings import last_error, memory_ran_out
from finestep.executors.turns import BY_HAND
from finestep.finding import Finding
from finestep.protocol import Event, EventKind
from finestep.study import FrameworkSpec
from finestep.study_layout import EVALUATIONS, STEPS
from finestep.trainers.agreement import Agreement
from finestep.trainers.framework import Framework
from finestep.trainers.guards import broken_guard
from finestep.trainers.launch import script_of
from finestep.trainers.live_log import EvalRow, LiveLog, TrainRow
from finestep.trainers.plan import TrialPlan, trial_text
from finestep.trial import Cost, EvalRecord, Forgetting, Outcome, StepRecord

CHANCE_LOSS = math.log(300_000)
"""Loss of a uniform guess over the largest vocabularies: the vocabulary is the framework's to know."""
ENDS_A_RUN = ("diverged", "non_finite_loss")
LOSSES = ("eval_loss", "val_loss")
COUNTS = re.compile(r"num_tokens|_ppl$|epoch$")
"""Numbers of an evaluation that measure no quality, or the loss once more."""
END_SHARE, FEWEST_END_STEPS = 0.1, 5
"""Of a framework that evaluates nothing, the mean training loss of the last tenth of the steps stands in."""
GRACE_S = 600.0
USUAL_TIMES = 10.0
"""Without `--timeout`, a run may take so many times what the preflight promised, and ten minutes."""


class NotAsAsked(BadInput):
    """A framework trains something else than it was asked."""


@dataclass(frozen=True)
class Circumstances:
    """What surrounds a run and is no part of what it trains.

    Attributes:
        is_stopping: becomes true when the user wants an end.
        is_stopped_by_hand: becomes true when the user wants an end of this trial, with what it has shown.
        shared: environment variables, like the GPUs that it may use.
        limit_s: a run that takes longer is ended.
    """

    number: int
    is_stopping: Callable[[], bool]
    is_stopped_by_hand: Callable[[], bool] = lambda: False
    shared: Mapping[str, str] = field(default_factory=dict)
    limit_s: float | None = None


@dataclass
class Pace:
    """When the rows of a log came, in seconds since the start."""

    first: float | None = None
    last: float = 0.0

    def note(self, elapsed: float) -> None:
        """A row came."""
        self.first = elapsed if self.first is None else self.first
        self.last = elapsed

    @property
    def seconds(self) -> float:
        """Between the first row and the last one."""
        return 0.0 if self.first is None else max(self.last - self.first, 0.0)


@dataclass
class FrameworkRun:
    """A run in a folder."""

    framework: Framework
    spec: FrameworkSpec
    plan: TrialPlan
    folder: Path
    around: Circumstances
    seen: list[TrainRow] = field(default_factory=list)
    evaluation: EvalRow | None = None
    findings: list[Finding] = field(default_factory=list)
    command: Detached = field(init=False)
    agreement: Agreement = field(init=False)
    log: LiveLog = field(init=False)
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        self.command = Detached(self.folder)
        self.agreement = Agreement(self.plan, self.framework)
        self.log = LiveLog(self.framework, self.plan, self.command.output)
        self._monitor = LiveMonitor(chance_loss=CHANCE_LOSS, planned_steps=self.plan.num_steps)
        self._num_tokens = 0

    def follow(self) -> Iterator[Event | None]:
        """Start the run or find it again, and tell its steps; ends with it. None: nothing new now.

        Raises:
            NotAsAsked: its log says another rate, batch, warmup or length than the plan.
        """
        self._begin()
        while True:
            is_over = self.command.is_over or not self.command.is_running()
            for row in self.log.rows(is_over=is_over):
                yield from self._take(row)
            self._check(self.agreement.broken_by_what_it_said(self.log.said))
            if is_over or self._lost() is not None:
                break
            if self.around.is_stopping():
                self.command.end()
                return
            if self.around.is_stopped_by_hand():
                self._ended = BY_HAND
                break
            if (limit := self._limit()) and time.time() - self.command.began() > limit:
                break
            yield None
        if not self.command.is_over:
            self._ended = self._ended or self._why_ended()
            self.command.end()
        self.command.reap()

    _ended: str = ""
    """Why it was ended before its own end."""

    def outcome(self) -> Outcome:
        """What became of it.

        Raises:
            NotAsAsked: the whole run was not what was asked for.
        """
        values = dict(self.evaluation.values) if self.evaluation else {}
        values |= self._exact_values()
        state, reason = self._state(values)
        if state == "completed":
            self._check(self.agreement.broken_at_end())
        guard = broken_guard(self.spec.guards, values) if state == "completed" else None
        tells = state in ("completed", "stopped")
        loss = self._loss(values) if tells else None
        return Outcome(
            state=state,
            reason=guard or reason,
            eval_loss=loss,
            best_step=self.plan.num_steps if loss is not None else None,
            metrics={
                name: value
                for name, value in values.items()
                if name not in LOSSES and not COUNTS.search(name) and math.isfinite(value)
            }
            if tells and loss is not None
            else {},
            by_hand=state == "stopped",
            forgetting=Forgetting(broken_guard=guard),
            cost=Cost(
                num_steps=self.seen[-1].step if self.seen else 0,
                num_train_tokens=self._num_tokens,
                elapsed_s=round(self.command.seconds(), 3),
                micro_batch_size=self.plan.micro_batch,
            ),
            findings=tuple(self.findings),
        ).said()

    def losses(self) -> tuple[float, ...]:
        """What it logged, for comparison with other runs."""
        return tuple(row.loss for row in self.seen)

    def _begin(self) -> None:
        text = trial_text(self.framework, self.spec, self.plan)
        config = self.folder / f"config{Path(self.spec.config).suffix or '.yaml'}"
        script = script_of(self.framework, self.spec, config, text) + exit_code_lines(self.folder)
        self.command.set_aside_another(script)
        for name in (STEPS, EVALUATIONS):  # what an earlier session told is told again, from the log itself
            remove(self.folder / name)
        if not self.command.is_over and not self.command.is_running():
            remove(Path(self.plan.output))
            write_whole(config, text)
            self.command.launch(script, environment=self.around.shared)

    def _take(self, row: TrainRow | EvalRow) -> Iterator[Event]:
        elapsed = time.time() - self.command.began()
        if isinstance(row, EvalRow):
            self.evaluation = row
            if (loss := self._loss(row.values)) is not None:
                record = EvalRecord(
                    step=row.step,
                    num_tokens=self._num_tokens,
                    eval_loss=loss,
                    metrics={name: value for name, value in row.values.items() if name not in LOSSES},
                    elapsed_s=elapsed,
                )
                append_line(self.folder / EVALUATIONS, record.model_dump_json())
                yield self._event("evaluation", record.model_dump())
            return
        self.pace.note(elapsed)
        self.seen.append(row)
        self._check(self.agreement.broken_by(row))
        step = self._record(row, elapsed)
        append_line(self.folder / STEPS, step.model_dump_json())
        # A gradient norm that is not logged must not look like one that is no number.
        known = step if math.isfinite(step.grad_norm) else step.model_copy(update={"grad_norm": 1.0})
        self.findings += self._monitor.step(known)
        yield self._event("step", step.model_dump())

    def _record(self, row: TrainRow, elapsed: float) -> StepRecord:
        tokens = 0 if math.isnan(row.num_tokens) else max(int(row.num_tokens) - self._num_tokens, 0)
        self._num_tokens += tokens
        return StepRecord(
            step=max(row.step, 1),
            loss=row.loss,
            learning_rate=row.learning_rate,
            grad_norm=row.grad_norm,
            clipped=False,
            num_tokens=tokens,
            num_loss_tokens=max(tokens, 1),
            elapsed_s=elapsed,
        )

    def _event(self, kind: EventKind, data: dict[str, object]) -> Event:
        return Event(kind=kind, trial=self.around.number, data=data)

    def _check(self, broken: str | None) -> None:
        if broken is None:
            return
        if self.command.is_running():
            self.command.end()
        raise NotAsAsked(
            f"{self.framework.words} does not train what it was asked: {broken}",
            place=str(self.command.output),
            next_step="look for a setting that overrides it, in the file, its includes or the launcher",
        )

    def _lost(self) -> Finding | None:
        return next((one for one in self.findings if one.code in ENDS_A_RUN), None)

    def _limit(self) -> float | None:
        return self.spec.launch.timeout_s or self.around.limit_s

    def _why_ended(self) -> str:
        if (lost := self._lost()) is not None:
            return lost.meaning
        if self.command.is_running():
            source = (
                "--timeout"
                if self.spec.launch.timeout_s
                else "ten times what the preflight promised; --timeout sets it"
            )
            return f"ended after {self._limit():.0f} s ({source})"
        return ""

    def _state(self, values: Mapping[str, float]) -> tuple[str, str]:
        if (lost := self._lost()) is not None:
            return "diverged", lost.meaning
        if self._ended == BY_HAND:
            return "stopped", BY_HAND
        if self._ended:
            return "failed", self._ended
        code = self.command.exit_code()
        output = self.command.tail() if code != 0 else ""
        if code != 0:
            how = f"exit code {code}" if code is not None else "it was killed"
            return "out_of_memory" if memory_ran_out(output) else "failed", f"{how}: {last_error(output)}"
        loss = self._loss(values)
        if loss is None:
            return "failed", "its log holds no validation loss" + (f", only {', '.join(values)}" if values else "")
        return "completed", self.agreement.words()

    def _loss(self, values: Mapping[str, float]) -> float | None:
        found = next((values[name] for name in LOSSES if name in values), None)
        if found is not None or self.framework.validation.is_done:
            named = [name for name in values if name.endswith("loss")]
            return found if found is not None or len(named) != 1 else values[named[0]]
        last = self.seen[-max(FEWEST_END_STEPS, round(END_SHARE * len(self.seen))) :]
        return sum(row.loss for row in last) / len(last) if last else None

    def _exact_values(self) -> dict[str, float]:
        """The last evaluation to all digits, where the framework writes it into a file."""
        found: dict[str, float] = {}
        for name in self.framework.written.results:
            for key, value in (read_object(Path(self.plan.output) / name) or {}).items():
                if key.startswith("eval_") and isinstance(value, float | int) and not key.endswith("_second"):
                    found[key] = float(value)
        return {key: value for key, value in found.items() if "runtime" not in key and "second" not in key}
