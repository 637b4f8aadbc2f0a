"""Review: somebody's training config or script beside what finestep would recommend for the same model, method and length, in words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from finestep.errors import BadInput
from finestep.facts import DataFacts, HardwareFacts, ModelFacts
from finestep.flows.judged_numbers import judged_numbers
from finestep.flows.judged_rate import Case, judged_rate
from finestep.flows.judged_run import judged_run
from finestep.flows.planned_run import PlannedRun, planned_run
from finestep.flows.recommend import recommend
from finestep.flows.remark import ORDER, Remark
from finestep.foreign.config import ForeignConfig
from finestep.foreign.reading import read_config
from finestep.rules.compose import TRAINED_METHODS, Ask
from finestep.rules.recommendation import Recommendation
from finestep.study import DataSpec

OTHER_NAMES = {"prefix_tuning": "prefix", "ptuning": "p-tuning", "p_tuning": "p-tuning", "prompt_tuning": "prompt"}
KNOWN_METHODS = (*TRAINED_METHODS, "prefix", "p-tuning", "prompt", "ia3")
SHARDED_DEVICES = 8
SIZES_WITHOUT_A_NAME = ("1B", "8B", "70B")
"""Judged for all of these when the file names no model."""


class Review(BaseModel):
    """What finestep would say about a config. `recommendation` is None where no model is named, or nothing is known of its kind."""

    model_config = ConfigDict(frozen=True)

    place: str
    framework: str
    layout: str
    subject: str
    read: tuple[str, ...]
    remarks: tuple[Remark, ...]
    notes: tuple[str, ...]
    recommendation: Recommendation | None


@dataclass(frozen=True)
class _Subject:
    """The model as far as it is known, and what to say of how."""

    facts: ModelFacts | None
    notes: tuple[str, ...] = ()


def review_config(
    path: Path,
    *,
    model: str | None = None,
    data: str | DataSpec | None = None,
    hardware: HardwareFacts | str | None = None,
    params: str | None = None,
    method: str | None = None,
    objective: str | None = None,
) -> Review:
    """Read a config or a script of another tool and say what to change in it.

    Args:
        hardware: the card that will train it; None = memory is not judged.
        params: size of the model, where its name does not tell.
        method: full, lora or qlora, where the file does not tell.
        objective: sft, dpo, ..., where its command or its rows tell better than the file.

    Raises:
        BadInput: the file cannot be read, or holds no training settings.
    """
    config = read_config(path)
    _check_ranges(config, path)
    if method is not None:
        config = replace(config, method=method)
    if objective is not None:
        config = replace(config, objective=objective)
    subject = _subject(model or config.model, params)
    gpu = _hardware(hardware)
    facts = _data(data)
    run = planned_run(config, facts, gpu)
    likely, assumed = _likely_run(config, run)
    cases = _cases(config, likely, subject.facts, facts) if config.is_supervised else []
    answer = cases[0].answer if cases and subject.facts is not None else None
    remarks = [
        *judged_rate(config, cases, is_named=subject.facts is not None),
        *judged_run(config, run, subject.facts, facts),
        *judged_numbers(config, run, subject.facts, facts, gpu),
    ]
    return Review(
        place=str(path),
        framework=config.framework,
        layout=config.layout,
        subject=_title(config, subject.facts),
        read=_read(config, run),
        remarks=tuple(sorted(remarks, key=lambda remark: ORDER[remark.verdict])),
        notes=(*config.notes, *subject.notes, *assumed),
        recommendation=answer,
    )


MOST = {
    "learning_rate": 1e3,
    "micro_batch_size": 65_536,
    "effective_batch_size": 65_536,
    "accumulation_steps": 65_536,
    "num_devices": 65_536,
    "num_epochs": 1000,
    "lora_rank": 4096,
    "lora_alpha": 1e9,
    "max_length": 1e9,
}
"""Settings that must be above zero, and what none of them ever exceeds: with other numbers no arithmetic means anything."""


def _check_ranges(config: ForeignConfig, path: Path) -> None:
    stated = config.stated()
    for name, most in MOST.items():
        value = stated[name]
        if isinstance(value, int | float) and not 0 < value <= most:
            raise BadInput(
                f"`{config.places.get(name, name)}` must be above 0 and at most {most:g}",
                value=value,
                place=str(path),
            )


def _subject(name: str | None, params: str | None) -> _Subject:
    """The model by its files, by its name, or not at all; a path of another machine is no error."""
    from finestep.survey.model import facts_from_size, model_facts
    from finestep.survey.model_name import facts_from_name

    by_name = facts_from_name(name) if name else None
    if params is not None:
        sized = facts_from_size(params)
        if by_name is not None:
            sized = sized.model_copy(update={"family": by_name.family, "is_encoder": by_name.is_encoder})
        return _Subject(sized.model_copy(update={"name": name}) if name else sized)
    if name is None:
        sizes = ", ".join(SIZES_WITHOUT_A_NAME)
        return _Subject(None, (f"no model is named: judged for {sizes}; `--params 7B` narrows it",))
    try:
        return _Subject(model_facts(name, offline=by_name is not None))
    except BadInput:
        if by_name is None:
            return _Subject(None, (f"nothing is known of the model `{name}`: say its size, `--params 7B`",))
    size = f"{(by_name.num_parameters or 0) / 1e9:.3g}B"
    return _Subject(by_name, (f"`{name}` is not here: it is judged as a model of {size} parameters, by its name",))


def _hardware(hardware: HardwareFacts | str | None) -> HardwareFacts | None:
    from finestep.survey.hardware import hardware_facts

    return hardware_facts(hardware) if isinstance(hardware, str) else hardware


def _data(data: str | DataSpec | None) -> DataFacts | None:
    from finestep.survey.data_sample import data_facts

    return None if data is None else data_facts(data if isinstance(data, DataSpec) else DataSpec(path=data))


def _likely_run(config: ForeignConfig, run: PlannedRun) -> tuple[PlannedRun, tuple[str, ...]]:
    """The run that the rate is judged for: a sharded one has several devices, also where the file names no number."""
    open_batch = run.devices_from == "assumed" and config.batch.effective_batch_size is None and run.batch is not None
    if config.memory.sharding not in ("zero-3", "fsdp") or not open_batch:
        return run, ()
    words = f"{config.memory.sharding} needs several devices, and the file names no number: the rate is judged for {SHARDED_DEVICES}"
    return replace(run, devices=SHARDED_DEVICES, batch=(run.batch or 1) * SHARDED_DEVICES), (words,)


def _cases(config: ForeignConfig, run: PlannedRun, facts: ModelFacts | None, data: DataFacts | None) -> list[Case]:
    """A recommendation for each model and method that the file may mean; none for methods that no rule knows."""
    from finestep.survey.model import facts_from_size

    models = [facts] if facts is not None else [facts_from_size(size) for size in SIZES_WITHOUT_A_NAME]
    out = []
    for model in models:
        for method in _methods(config, model):
            ask = _ask(config, run)
            length = _length(run, data)
            answer = recommend(model, length, method=method, hardware=HardwareFacts(), ask=ask)
            out.append(Case(method, model, answer))
    return out


def _methods(config: ForeignConfig, model: ModelFacts) -> list[str]:
    stated = OTHER_NAMES.get(config.method or "", config.method)
    if stated is None:
        return ["full"] if model.is_encoder else ["lora", "full"]
    if stated not in KNOWN_METHODS:
        return []
    is_adapter = stated in ("lora", "qlora")
    return [config.adapter.variant if is_adapter and config.adapter.variant in _variants() else stated]


def _variants() -> tuple[str, ...]:
    from finestep.rules.variants import VARIANTS

    return VARIANTS


def _ask(config: ForeignConfig, run: PlannedRun) -> Ask:
    rank, alpha = config.value("lora_rank"), config.value("lora_alpha")
    return Ask(
        rank=int(rank) if rank else None,
        alpha=alpha,
        batch=run.batch,
        num_epochs=1.0 if run.steps else run.epochs,
        target_modules=_partial(config),
    )


def _length(run: PlannedRun, data: DataFacts | None) -> DataFacts | None:
    """The length of the run as rows that are seen once, which is what the rate depends on."""
    if run.steps is None or run.batch is None:
        return data
    known = data or DataFacts(name="the run")
    return known.model_copy(update={"num_rows": max(1, run.steps * run.batch)})


def _partial(config: ForeignConfig) -> tuple[str, ...] | None:
    """The target modules when they are only a part of the linear layers."""
    names = config.adapter.target_modules
    return names if names and not any("down" in n or "fc2" in n or "mlp" in n or "w2" in n for n in names) else None


def _title(config: ForeignConfig, facts: ModelFacts | None) -> str:
    what = {"sft": "", "pretraining": "continued pre-training, "}.get(config.objective, f"{config.objective}, ")
    own = "full" if facts and facts.is_encoder else "full or LoRA (not stated)"
    method = config.adapter.variant or config.method or own
    return f"{what}{method} of {facts.name if facts else config.model or 'a model that is not named'}"


def _read(config: ForeignConfig, run: PlannedRun) -> tuple[str, ...]:
    """What was taken from the file, so that a misreading can be seen."""
    out = []
    if config.optimization.learning_rate is not None:
        out.append(f"learning rate {config.optimization.learning_rate:g} ({config.places.get('learning_rate', '')})")
    if run.batch:
        out.append(run.product)
    if run.steps:
        out.append(f"{run.steps:,} steps")
    if run.epochs:
        out.append(
            f"{run.epochs:.3g} pass{'es' * (run.epochs != 1)}" + (f" over {run.rows:,} rows" if run.rows else "")
        )
    if config.memory.sharding:
        out.append(config.memory.sharding)
    return tuple(out)
