"""The result of a study of somebody's config: that file with the found values, each changed line with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from finestep.answer import Answer
from finestep.disk import read_object, write_whole
from finestep.errors import FinestepError
from finestep.executors.preflight import FILE as PREFLIGHT
from finestep.store.study_files import StudyFiles
from finestep.study import FrameworkSpec
from finestep.trainers.config_text import Change, ConfigText
from finestep.trainers.config_text import Path as Place
from finestep.trainers.framework import Framework
from finestep.trainers.frameworks import framework
from finestep.trainers.plan import TrialPlan, found_values, place_of, plan_trial, says_already, tree_of, value_at
from finestep.trial import Trial

PREFIX = "tuned-"
AS_MEASURED = "finestep: as it was measured"


def write_config(store: StudyFiles, best: Trial, answer: Answer | None) -> Path | None:
    """Write the user's file with the values of the best trial, and answer with its place; None when it cannot be written."""
    spec = store.spec.framework
    assert spec is not None
    own = framework(spec.name)
    target = config_path(store)
    assert target is not None
    try:
        write_whole(target, tuned_text(own, spec, best_plan(store, best), best, answer))
    except FinestepError:
        return None
    return target


def config_path(store: StudyFiles) -> Path | None:
    """Where the file stands; None for a study without one."""
    spec = store.spec.framework
    return None if spec is None else store.folder / f"{PREFIX}{Path(spec.config).name}"


def best_plan(store: StudyFiles, best: Trial) -> TrialPlan:
    """What the best trial trained, with the micro-batch that memory allowed."""
    spec = store.spec.framework
    assert spec is not None
    known = (read_object(store.folder / PREFLIGHT) or {}).get("num_rows")
    counted = known if isinstance(known, int) and known > 0 else spec.full_run.num_rows
    return plan_trial(
        framework(spec.name),
        spec,
        best.recipe,
        fidelity=1.0,
        num_rows=counted or 1,
        output="",
        micro_limit=best.outcome.cost.micro_batch_size if best.outcome else None,
    )


def tuned_text(own: Framework, spec: FrameworkSpec, plan: TrialPlan, best: Trial, answer: Answer | None) -> str:
    """The file; whatever is not named here stays as its author wrote it."""
    tree = tree_of(spec.text, spec.config)
    names = own.names
    values = found_values(own, spec, plan, tree)
    if spec.full_run.rows_of_run is None:
        values.pop(names.max_steps)
        values.pop(names.epochs, None)
        if best.recipe.num_epochs != _number(value_at(tree, names.epochs)) and value_at(tree, names.epochs) is not None:
            values[names.epochs] = best.recipe.num_epochs
    if value_at(tree, names.seed) is None and plan.seed == own.defaults.seed:
        values.pop(names.seed)
    values |= {
        path: value for path, value in own.steps(plan.num_steps).items() if "eval" in str(path[-1]) or path[0] == "eval"
    }
    reasons = {names.learning_rate: _rate_note(best, answer), **_batch_notes(own, plan)}
    changes: dict[Place, object] = {}
    for path, value in values.items():
        stated = value_at(tree, path)
        if says_already(stated, value):
            continue
        note = reasons.get(path, AS_MEASURED if _is_data(path, spec) or "eval" in str(path) else "finestep")
        was = f", was {stated}" if isinstance(stated, int | float | str) and len(str(stated)) < 40 else ""
        changes[path] = Change(value, note + was)
    return ConfigText(spec.text, place=spec.config).changed(changes)


def _is_data(path: Place, spec: FrameworkSpec) -> bool:
    return any(place_of(name) == path for name in spec.settings)


def _rate_note(best: Trial, answer: Answer | None) -> str:
    """The interval of the best rate at this batch, and what the trial measured."""
    loss = best.outcome.eval_loss if best.outcome else None
    text = f"finestep: trial {best.number}" + (f", validation loss {loss:.4g}" if loss is not None else "")
    row = next(
        (one for one in answer.trade_offs if one.effective_batch_size == best.recipe.effective_batch_size)
        if answer
        else iter(()),
        None,
    )
    if row is None:
        return text
    return f"{text}; best between {row.learning_rate.low:.1e} and {row.learning_rate.high:.1e} (80 %)"


def _batch_notes(own: Framework, plan: TrialPlan) -> Mapping[Place, str]:
    product = f"finestep: {plan.effective_batch_size} rows a step = {plan.micro_batch} x {plan.accumulation} x {plan.num_devices}"
    places = (own.names.micro_batch, own.names.accumulation, own.names.whole_batch)
    return {place: product for place in places if place is not None}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
