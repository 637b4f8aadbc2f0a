"""Length, warmup, schedule and batch of somebody's run, judged by its real steps where they are known."""

from __future__ import annotations

from finestep.facts import DataFacts, ModelFacts
from finestep.flows.planned_run import PlannedRun
from finestep.flows.remark import Remark, Verdict
from finestep.foreign.config import ForeignConfig
from finestep.recipe import ScheduleGroup
from finestep.rules.batch_size import CAPS
from finestep.rules.duration import num_epochs
from finestep.rules.warmup import warmup_steps

FEW_STEPS = 100
HIGH_WARMUP_SHARE = 0.2
SMALL_BATCH = 4
FAR_TOO_MANY = 2.0
"""Passes over the upper end of the usual range, times this, are a fault and not a taste."""
EARLY_END, LATE_END = 0.9, 1.5


def judged_run(
    config: ForeignConfig, run: PlannedRun, model: ModelFacts | None, data: DataFacts | None
) -> list[Remark]:
    """Remarks on everything that steps, rows and batch decide."""
    found = [
        _steps(config, run),
        _epochs(config, run, model),
        _warmup(config, run),
        _schedule(config, run),
        _batch(config, run),
    ]
    return [remark for remark in (*found, _product(config, run), _packing(config), _batch_finder(config)) if remark]


def _steps(config: ForeignConfig, run: PlannedRun) -> Remark | None:
    if run.steps is None or not config.is_supervised:
        return None
    seen = f", which see {run.steps * run.batch:,} rows" if run.batch else ""
    who = f"`{_last(config.places.get('max_steps', 'max_steps'))}` decides: " if config.length.max_steps else ""
    if run.steps < FEW_STEPS:
        text = f"{who}only {run.steps} optimizer steps{seen}: below about {FEW_STEPS} nothing settles; lower the batch or train longer"
        return Remark(topic="num_steps", verdict="change", text=text)
    over = (
        f" ({config.length.num_epochs:g} epochs are stated too, and do not count)"
        if config.length.max_steps and config.length.num_epochs
        else ""
    )
    return Remark(topic="num_steps", verdict="fine", text=f"{who}{run.steps:,} optimizer steps{seen}{over}")


def _last(place: str) -> str:
    return place.rsplit(".", 1)[-1]


def _epochs(config: ForeignConfig, run: PlannedRun, model: ModelFacts | None) -> Remark | None:
    """Passes against what is usual for so many rows."""
    if run.epochs is None or not config.is_supervised:
        return None
    is_encoder = bool(model and model.is_encoder)
    usual = num_epochs(run.rows, is_encoder=is_encoder)
    over = f" over {run.rows:,} rows" if run.rows else ""
    most = f"{usual.value:g} (at most {usual.high:g}) are usual" + ("" if run.rows else " where the rows are not known")
    shown = f"{run.epochs:.3g} pass{'es' * (run.epochs != 1)}{over}"
    if run.epochs >= FAR_TOO_MANY * usual.high:
        text = f"{shown} are far too many: {most}; the rows are learned by heart, and the validation loss rises long before the end"
        return Remark(topic="num_epochs", verdict="change", text=text)
    if run.epochs > usual.high or (run.epochs > 3 and not is_encoder and not run.rows):
        text = f"{shown}: {most}; watch the validation loss, or stop early"
        return Remark(topic="num_epochs", verdict="consider", text=text)
    if run.epochs < 0.5:
        rows = f"the {run.rows:,} rows" if run.rows else "the rows"
        text = f"the run ends after {run.epochs:.2g} of a pass over {rows}; is that wanted?"
        return Remark(topic="num_epochs", verdict="consider", text=text)
    return Remark(topic="num_epochs", verdict="fine", text=f"{shown}: usual")


def _warmup(config: ForeignConfig, run: PlannedRun) -> Remark | None:
    if config.objective not in ("sft", "pretraining") and config.optimization.warmup is None:
        return None
    wanted = (
        f"{warmup_steps(ScheduleGroup(), run.steps)} steps are enough"
        if run.steps
        else "about 5 % of the run is enough"
    )
    if not config.optimization.warmup:
        stated = (
            "no warmup" if config.optimization.warmup == 0 or config.framework != "unknown" else "no warmup is stated"
        )
        return Remark(topic="warmup", verdict="consider", text=f"{stated}: it makes the same rate safer; {wanted}")
    share = (
        config.optimization.warmup
        if config.optimization.warmup < 1
        else config.optimization.warmup / run.steps
        if run.steps
        else None
    )
    shown = (
        f"warmup of {config.optimization.warmup:.0%} of the run"
        if config.optimization.warmup < 1
        else f"warmup of {config.optimization.warmup:,.0f} steps"
    )
    if share is None:
        text = f"{shown}: the length of the run is not known, so its share is not either; it should be 3 to 10 %"
        return Remark(topic="warmup", verdict="not judged", text=text)
    if share >= 1:
        top = f" It ends at {1 / share:.0%} of it" if share > 1.05 else ""
        text = (
            f"{shown} in a run of {run.steps:,} steps: the peak of the learning rate is never reached.{top}; {wanted}"
        )
        return Remark(topic="warmup", verdict="change", text=text)
    if share > HIGH_WARMUP_SHARE:
        of = f" of {run.steps:,} steps" if run.steps else ""
        return Remark(topic="warmup", verdict="change", text=f"{shown}: {share:.0%}{of} is long; {wanted}")
    steps = f" ({share * run.steps:.0f} of {run.steps:,} steps)" if run.steps else ""
    return Remark(topic="warmup", verdict="fine", text=f"{shown} is usual{steps}")


def _schedule(config: ForeignConfig, run: PlannedRun) -> Remark | None:
    """A decay that ends before, or long after, the run does."""
    end = config.length.decay_steps
    if end is None or run.steps is None:
        return None
    name = config.optimization.schedule or "schedule"
    if end < EARLY_END * run.steps:
        left = 1 - end / run.steps
        text = (
            f"the {name} ends at step {end:,} of {run.steps:,}: the last {left:.0%} of the run train at its lowest rate; "
            f"let it end at {run.steps:,}, or stop there"
        )
        return Remark(topic="schedule", verdict="change", text=text)
    if end > LATE_END * run.steps:
        text = f"the {name} is made for {end:,} steps, and the run ends at {run.steps:,}: the rate never comes down"
        return Remark(topic="schedule", verdict="change", text=text)
    return Remark(topic="schedule", verdict="fine", text=f"the {name} ends with the run, at step {end:,}")


def _batch(config: ForeignConfig, run: PlannedRun) -> Remark | None:
    if run.batch is None or not config.is_supervised:
        return None
    own = run.product
    if run.devices_from == "assumed" and config.batch.effective_batch_size is None:
        own += " (the file does not say how many devices; each multiplies it)"
    elif run.devices_from == "gpu" and config.batch.effective_batch_size is None:
        own += " (as many as you named)"
    cap = CAPS.get(config.method or "lora", 64)
    verdict: Verdict = "fine"
    text = f"{own} is in the usual range"
    if run.batch > 2 * cap:
        verdict = "change"
        text = f"{own} is large for {config.method or 'fine-tuning'}: measured results get worse above 128 rows; use {cap} or fewer"
    elif run.batch < SMALL_BATCH:
        verdict = "consider"
        text = f"{own} is small: its gradients are noisy, and it wants a lower rate; 8 to {cap} rows are usual"
    return Remark(topic="effective_batch_size", verdict=verdict, text=text)


def _product(config: ForeignConfig, run: PlannedRun) -> Remark | None:
    """A batch that the micro-batch and the devices cannot make up."""
    batch, micro = config.batch.effective_batch_size, config.batch.micro_batch_size
    devices = config.batch.num_devices or 1
    if not batch or not micro or batch % (micro * devices) == 0:
        return None
    text = f"effective batch {batch} is no multiple of {micro} rows x {devices} devices: most trainers refuse it or train another batch"
    return Remark(topic="effective_batch_size", verdict="change", text=text)


def _packing(config: ForeignConfig) -> Remark | None:
    if not config.batch.packing:
        return None
    text = "packing puts several rows into one: the effective batch holds more rows, and the run has fewer steps, than it says"
    return Remark(topic="packing", verdict="consider", text=text)


def _batch_finder(config: ForeignConfig) -> Remark | None:
    if not config.batch.auto_find_batch_size:
        return None
    text = "auto_find_batch_size halves the batch without raising the accumulation; switch it off"
    return Remark(topic="auto_find_batch_size", verdict="change", text=text)
