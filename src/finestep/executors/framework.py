"""Another trainer by its own config: each trial is that file with a few settings changed, run by the framework's own launcher.

It joins the contract of an executor. A run whose controller died goes on alone, and the next controller follows it from its log.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from finestep.disk import make_folder, remove
from finestep.errors import BadInput, FinestepError
from finestep.executors.at_once import AtOnce
from finestep.executors.detached import POLL_S
from finestep.executors.endings import machine_fault
from finestep.executors.framework_run import GRACE_S, USUAL_TIMES, Circumstances, FrameworkRun
from finestep.executors.memory_limit import MemoryLimit
from finestep.executors.preflight import STEPS, Preflight, hash_of, keep_preflight, known_preflight
from finestep.executors.turns import TurnsExecutor, finished, given_back, noted
from finestep.executors.twins import Seen, refuse_twins, remember
from finestep.facts import DataFacts
from finestep.protocol import Event, TrialRequest
from finestep.ready import DataCard, Machine, Ready, SharePlan
from finestep.recipe import Recipe
from finestep.study import FrameworkSpec
from finestep.study_layout import MODEL
from finestep.trainers.frameworks import framework
from finestep.trainers.guards import broken_guard
from finestep.trainers.plan import TrialPlan, plan_trial
from finestep.trial import Outcome

OUTPUT_FOLDER = MODEL
"""Where a framework writes: the place where a trial's weights are looked for."""
PREFLIGHT = "preflight"
MOSTLY_FIXED = 0.5
"""Above this share of a full run, short runs are not made (`flows/with_space`)."""


class FrameworkExecutor(TurnsExecutor):
    """Runs trials in a framework.

    Args:
        recipe: of the study; the preflight flies its rate and batch.
        folder: of the study.
        gpus: visible devices, shared out to the trials that run at the same time.
    """

    def __init__(self, spec: FrameworkSpec, recipe: Recipe, *, folder: Path, gpus: Sequence[str] = ()):
        super().__init__(AtOnce(self._run, most=spec.launch.parallel))
        self._spec, self._recipe, self._folder = spec, recipe, folder
        self._framework = framework(spec.name)
        self._memory = MemoryLimit(folder)
        self._places = _places(gpus, spec.launch.parallel)
        self._preflight: Preflight | None = None
        self._runs: dict[int, FrameworkRun] = {}

    def start(self) -> Ready | None:
        """Two steps, unless an earlier session made them: rows as the framework counts them, and what a run costs.

        Raises:
            FinestepError: it does not start, or does not train what it was asked.
        """
        self._turns.begin()
        found = self._preflight = self._fly()
        if found is None:
            return None
        rows = found.num_rows or self._spec.full_run.num_rows
        if rows is None and self._spec.full_run.rows_of_run is None:
            raise BadInput(
                f"how many rows {self._framework.words} trains on is not known, so that a trial's length is not either",
                place=self._spec.config,
                next_step="state the steps of a full run in the file, or give the rows: --data FILE",
            )
        steps = self._plan(self._recipe, 1.0, self._folder).num_steps
        card = DataCard(
            facts=DataFacts(name=self._spec.config, num_rows=rows, num_eval_rows=self._spec.full_run.num_eval_rows),
            fixed_share=round(found.fixed_share(steps), 4),
            notes=(self._price_words(found, steps),),
        )
        machine = Machine(
            trainer=self._framework.words,
            config=self._spec.config,
            start_up_s=round(found.fixed_s, 1),
            step_s=round(found.step_s, 3),
        )
        return Ready(card=card, machine=machine, sharing=SharePlan(num_workers=self._spec.launch.parallel))

    def kill(self) -> None:
        """End the running trials now."""
        self._turns.stop()
        for run in list(self._runs.values()):
            run.command.kill()

    def close(self) -> None:
        """End what is running: after an error in one trial, others may be."""
        for run in list(self._runs.values()):
            if run.command.is_running():
                run.command.end()
        self._runs.clear()

    # ---- the preflight

    def _fly(self) -> Preflight | None:
        asked = hash_of(
            self._spec.text,
            self._spec.launch.launcher,
            str(self._spec.launch.python),
            str(sorted(self._spec.settings.items())),
        )
        if (known := known_preflight(self._folder, asked)) is not None:
            return known
        folder = self._folder / PREFLIGHT
        while True:
            plan = self._plan(self._recipe, 1.0, folder, num_steps=STEPS)
            run = self._new_run(plan, folder, number=-1, place=self._places[0] if self._places else None)
            make_folder(folder)
            for _ in run.follow():
                time.sleep(POLL_S)
            if self._turns.is_stopping:
                return None
            outcome = run.outcome()
            if outcome.state == "out_of_memory" and plan.micro_batch > 1:
                self._memory.ran_out_at(plan.micro_batch)
                continue
            if outcome.state not in ("completed", "diverged"):
                self._refuse(run, outcome)
            break
        found = _measured(run, asked)
        broken_guard(self._spec.guards, dict.fromkeys(found.metrics, 0.0))
        keep_preflight(self._folder, found)
        remove(Path(plan.output))
        return found

    def _refuse(self, run: FrameworkRun, outcome: Outcome) -> None:
        if (fault := machine_fault(run.command.tail(), run.folder)) is not None:
            raise fault
        run.command.forget_end()
        raise BadInput(
            f"{self._framework.words} did not get through {STEPS} steps: {outcome.reason}",
            place=str(run.command.output),
            next_step=f"the file that it was given is {run.folder / 'config'}{Path(self._spec.config).suffix}",
        )

    def _price_words(self, found: Preflight, steps: int) -> str:
        whole, share = found.run_s(steps), found.fixed_share(steps)
        text = (
            f"a full run takes about {whole:.0f} s, {found.fixed_s:.0f} s of it start-up and evaluation ({share:.0%})"
        )
        return text + (
            "; short runs would cost as much, so that only full runs are made" if share > MOSTLY_FIXED else ""
        )

    # ---- trials

    def _run(self, request: TrialRequest) -> Iterator[Event | None]:
        folder = Path(request.folder)
        make_folder(folder)
        number = request.number
        plan = self._plan(request.recipe, request.fidelity, folder)
        yield Event(kind="started", trial=number, data={"num_steps": plan.num_steps, "from_step": 0})
        while True:
            try:
                outcome = yield from self._attempt(plan, folder, number)
            except FinestepError as error:
                self._runs.pop(number, None)
                yield Event(kind="error", data={"error": error.kind, "text": str(error), "place": error.place})
                return
            if outcome is None:
                yield given_back(request)
                return
            if outcome.state != "out_of_memory" or plan.micro_batch == 1:
                break
            yield noted(number, folder, self._memory.ran_out_at(plan.micro_batch))
            plan = self._plan(request.recipe, request.fidelity, folder)
        yield finished(request, outcome)

    def _attempt(self, plan: TrialPlan, folder: Path, number: int) -> Generator[Event | None, None, Outcome | None]:
        """One run of a trial: its outcome, None when it was interrupted."""
        place = self._places.pop(0) if self._places else None
        run = self._runs[number] = self._new_run(plan, folder, number=number, place=place)
        try:
            if run.command.is_running():
                text = "it is still running since an earlier session; following it"
                yield Event(kind="note", trial=number, data={"text": text})
            yield from run.follow()
        finally:
            if place is not None:
                self._places.append(place)
            self._runs.pop(number, None)
        if self._turns.is_stopping and not run.command.is_over:
            return None
        outcome = run.outcome()
        if outcome.state == "failed" and (fault := machine_fault(run.command.tail(), folder)) is not None:
            run.command.forget_end()
            raise fault
        if outcome.state == "completed":
            seen = Seen(
                learning_rate=plan.learning_rate,
                losses=run.losses(),
                eval_loss=outcome.eval_loss,
                is_checked=run.agreement.num_rates > 0,
            )
            remember(folder, seen)
            refuse_twins(folder)
        return outcome

    def _new_run(self, plan: TrialPlan, folder: Path, *, number: int, place: str | None = None) -> FrameworkRun:
        known = self._preflight
        return FrameworkRun(
            self._framework,
            self._spec,
            plan,
            folder,
            Circumstances(
                number,
                is_stopping=lambda: self._turns.is_stopping,
                is_stopped_by_hand=lambda: number in self._turns.stopped,
                shared={"CUDA_VISIBLE_DEVICES": place} if place is not None else {},
                limit_s=GRACE_S + USUAL_TIMES * known.run_s(plan.num_steps) if known else None,
            ),
        )

    def _plan(self, recipe: Recipe, fidelity: float, folder: Path, *, num_steps: int | None = None) -> TrialPlan:
        rows = (self._preflight.num_rows if self._preflight else None) or self._spec.full_run.num_rows or 1
        return plan_trial(
            self._framework,
            self._spec,
            recipe,
            fidelity=fidelity,
            num_rows=rows,
            output=str(folder / OUTPUT_FOLDER),
            micro_limit=self._memory.rows,
            num_steps=num_steps,
        )


def _measured(run: FrameworkRun, asked: str) -> Preflight:
    """What the preflight cost: a step is the time between its two rows, the rest is fixed."""
    step = run.pace.seconds / max(len(run.seen) - 1, 1)
    return Preflight(
        asked=asked,
        num_rows=run.log.said.num_rows,
        fixed_s=max(run.command.seconds() - STEPS * step, 0.0),
        step_s=step,
        metrics=tuple(run.evaluation.values) if run.evaluation else (),
        num_rates=run.agreement.num_rates,
    )


def _places(gpus: Sequence[str], parallel: int) -> list[str]:
    """The GPUs of each trial that runs at the same time; empty without GPUs.

    >>> _places(["0", "1", "2", "3"], 2), _places([], 2)
    (['0,1', '2,3'], [])
    """
    each = max(1, len(gpus) // parallel)
    return (
        [",".join(gpus[start : start + each]) for start in range(0, len(gpus) - each + 1, each)][:parallel]
        if gpus
        else []
    )
