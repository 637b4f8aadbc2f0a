"""What a running study shows: a live line on a terminal, a line an event elsewhere."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.text import Text

from finestep import wording
from finestep.plain_text import plain_lines
from finestep.ready import Ready
from finestep.search.further_fields import tuned_values, value_words
from finestep.search.leader import leader
from finestep.search.search import length_words
from finestep.search.study_space import objective_of
from finestep.search.traits import traits_of
from finestep.studies.data_words import data_notes
from finestep.studies.event import TuneEvent
from finestep.studies.spent import study_spent
from finestep.study import Budget, StudySpec
from finestep.trial import BASE_GENERAL_PERPLEXITY, GENERAL_PERPLEXITY, EvalRecord, StepRecord, Trial

QUIET_LINE_EVERY_S = 60.0
BAR_CELLS = 24
QUIET_METRICS = frozenset({"perplexity", GENERAL_PERPLEXITY, BASE_GENERAL_PERPLEXITY})
"""Metrics that a line leaves out: they say the same as the one beside them."""


@dataclass
class UnderWay:
    """How far a running trial is."""

    trial: Trial
    num_steps: int
    first_step: int
    step: int
    loss: float = math.nan
    began: float = field(default_factory=time.monotonic)

    def standing(self) -> str:
        """Where it is, in words."""
        if math.isnan(self.loss) and self.step == self.first_step:
            return f"before step {self.first_step + 1} of {self.num_steps}"
        return f"step {self.step} of {self.num_steps}, loss {wording.loss(self.loss)}"

    def left_s(self) -> float | None:
        """Seconds to its end, once its pace is known."""
        made = self.step - self.first_step
        return None if made < 3 else (time.monotonic() - self.began) / made * (self.num_steps - self.step)


class Screen:
    """Shows the events of a study as they come."""

    def __init__(self, console: Console, spec: StudySpec, budget: Budget):
        self._console, self._spec, self._budget = console, spec, budget
        self._live = (
            Live(Text(""), console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
        )
        self._trials: dict[int, Trial] = {}
        self._known: Ready | None = None
        self._said = ""
        self._running: dict[int, UnderWay] = {}
        self._last_line = time.monotonic()

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        """A line that stays."""
        self._console.print(Text(plain_lines(text), style=style), soft_wrap=True)

    def show(self, event: TuneEvent) -> None:
        """Show one event."""
        if event.trial is not None:
            self._trials[event.trial.number] = event.trial
        match event.kind:
            case "ready":
                self._ready(event)
            case "trial_started":
                self._started(event)
            case "step" if isinstance(event.record, StepRecord):
                self._stepped(event.trial, event.record)
            case "evaluation" if isinstance(event.record, EvalRecord):
                self._progress()
            case "note" if "finding" in event.data and self._searches:
                pass  # a search tries rates that are meant to be too high; the report has what was seen of each trial
            case "note":
                whose = f"trial {event.trial.number}: " if event.trial is not None else ""
                self.say(f"    {whose}{event.text}", "yellow")
            case "saved":
                self.say(event.text, "dim")
            case "trial_finished" if event.trial is not None:
                self._running.pop(event.trial.number, None)
                self.say(*self._outcome_line(event.trial))

    @property
    def _searches(self) -> bool:
        return traits_of(self._spec.search.strategy).searches

    def _ready(self, event: TuneEvent) -> None:
        self._trials |= {trial.number: trial for trial in event.trials}
        if event.ready is not None:
            self._known = event.ready
            self._found(event.ready, is_finished=event.is_finished)
        if event.is_finished:
            self.say("finished before; nothing is left to do" + self._more_words())
        elif self._trials:
            done = sum(trial.state != "running" for trial in self._trials.values())
            self.say(f"going on: {done} trials are done already")

    def _found(self, ready: Ready, *, is_finished: bool) -> None:
        """What the trainer found: the data, the model, and how trials share the device."""
        rows, machine, sharing = ready.card.facts, ready.machine, ready.sharing
        if rows.num_tokens:
            share = (rows.num_trained_tokens or 0) / rows.num_tokens
            kind = f"{rows.num_labels} labels" if rows.num_labels else f"{share:.0%} of them trained"
            self.say(
                f"data: {rows.num_rows or 0:,} rows to train on, {rows.num_eval_rows or 0:,} to validate, "
                f"{wording.count(rows.num_tokens)} tokens, {kind}"
            )
        for note in [*data_notes(ready.card), *ready.card.notes]:
            self.say(f"      {note}")
        if machine.num_parameters:
            adapter = "" if self._spec.recipe.method == "full" else " with the adapter"
            self.say(
                f"model: {wording.count(machine.num_parameters)} parameters{adapter}, {machine.device}, {machine.dtype}"
            )
        reasons = {
            "threads": sharing.threads_why,
            "sharing a pass": sharing.why,
            "rows end to end": sharing.end_to_end_why,
            "processes": sharing.workers_why,
        }
        for name, why in reasons.items():
            if why and not is_finished:
                self.say(f"{name}: {why}")

    def _more_words(self) -> str:
        return "" if not self._searches else " within this budget: a larger --budget may go on"

    def _started(self, event: TuneEvent) -> None:
        trial = event.trial
        if trial is None:
            return
        first = event.from_step
        self._running[trial.number] = UnderWay(trial, event.num_steps, first, first)
        if first:
            self.say(f"    trial {trial.number} goes on from step {first}")
        elif self._searches and trial.why != self._said:
            self._said = trial.why
            self.say(f"  {trial.why}", "dim")
        self._progress()

    def _stepped(self, trial: Trial | None, record: StepRecord) -> None:
        if trial is not None and trial.number in self._running:
            running = self._running[trial.number]
            running.step, running.loss = record.step, record.loss
        self._progress()

    def _progress(self) -> None:
        if self._live:
            self._live.update(self._live_text())
        elif time.monotonic() - self._last_line > QUIET_LINE_EVERY_S:
            self._last_line = time.monotonic()
            for number, one in self._running.items():
                self.say(f"    trial {number}: {one.standing()}")

    def standing(self) -> str:
        """How far the running trials are, as plain text; empty when none runs."""
        return self._live_text().plain if self._running else ""

    def _live_text(self) -> Text:
        text = Text()
        for one in self._running.values():
            filled = round(BAR_CELLS * one.step / max(one.num_steps, 1))
            text.append(f" {one.trial.number:>3}  {_what(one.trial)}  ", style="bold")
            text.append("━" * filled, style="cyan")
            text.append("━" * (BAR_CELLS - filled), style="dim")
            text.append(f"  {one.standing()}\n")
        first = next(iter(self._running.values()), None)
        if first is not None:
            text.append(f"      {first.trial.stage}: {first.trial.why}\n", style="dim")
        text.append(f"      {self._summary()}", style="dim")
        return text

    def _summary(self) -> str:
        best = leader(self._spec, list(self._trials.values()))
        parts = [
            f"best so far {_what(best)}: {wording.loss(best.outcome.eval_loss)}"
            if best and best.outcome
            else "no full run yet"
        ]
        spent = study_spent(self._spec, list(self._trials.values()), self._known)
        parts.append(f"{spent:.1f} of at most {self._budget.full_runs:g} runs")
        left = [seconds for one in self._running.values() if (seconds := one.left_s()) is not None]
        if left:
            together = "these trials end" if len(self._running) > 1 else "this trial ends"
            parts.append(f"{together} in {wording.duration(max(left))}")
        return " · ".join(parts)

    def _outcome_line(self, trial: Trial) -> tuple[str, str]:
        outcome = trial.outcome
        assert outcome is not None
        stage = trial.stage if trial.fidelity == 1.0 else length_words(trial.fidelity)
        tuned = value_words(tuned_values(self._spec.search.tuned, trial))
        line = f" {trial.number:>3}  {_what(trial)}  {tuned + '  ' if tuned else ''}{stage:<22} "
        if outcome.forgets_too_much:
            what = "BREAKS A GUARD" if outcome.forgetting.broken_guard else "FORGETS TOO MUCH"
            return f"{line} loss {wording.loss(outcome.eval_loss)}  {what}: {outcome.reason}", "yellow"
        if not trial.ranks:
            log = f" (log: {wording.near(outcome.log)})" if outcome.log else ""
            return f"{line} {wording.STATE_WORDS[trial.state].upper()}: {outcome.reason}{log}", "red"
        if unranked := objective_of(self._spec, ()).unranked_words(trial):
            return f"{line} loss {wording.loss(outcome.eval_loss)}  does not rank: {unranked}", "yellow"
        best = leader(self._spec, list(self._trials.values()))
        leads = best is not None and best.number == trial.number and self._searches
        extra = "".join(
            f"  {name.replace('_', ' ')} {value:.3f}"
            for name, value in outcome.metrics.items()
            if name not in QUIET_METRICS
        )
        text = f"{line} loss {wording.loss(outcome.eval_loss)}{extra}  {wording.duration(outcome.cost.elapsed_s)}"
        text += "  <- best so far" if leads else ""
        if trial.state == "stopped":
            text += f"  ({outcome.reason})"
        return text, "green" if leads else ""


def _what(trial: Trial) -> str:
    return f"{wording.learning_rate(trial.recipe.learning_rate)} x {trial.recipe.effective_batch_size:<3}"
