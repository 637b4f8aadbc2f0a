"""Facts in, recommendation out: runs the rules in their order (memory, adapter, duration, batch, learning rate, the
rest).

It states every assumption that it had to make, and reads nothing but the packaged knowledge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from pydantic import ValidationError

from finestep.errors import BadInput, first_complaint
from finestep.estimate import Estimate
from finestep.facts import DataFacts, HardwareFacts, ModelFacts
from finestep.knowledge.models import ENCODER_DECODERS, lineage, recipe_family
from finestep.recipe import LoraGroup, Method, OptimizerGroup, Recipe, ScheduleGroup
from finestep.rules import adapter, batch_size, duration, layers, momentum, regularisation
from finestep.rules.effective_size import effective_parameters
from finestep.rules.fit_in_memory import MemoryPlan, plan_memory
from finestep.rules.learning_rate import (
    AskedAdapter,
    AskedModel,
    AskedTask,
    RateAnswer,
    RateRequest,
    learning_rate,
    rate_estimate,
    retention_estimate,
)
from finestep.rules.neighbours import Neighbour
from finestep.rules.preference_rate import METHODS as PREFERENCE_METHODS
from finestep.rules.preference_rate import objective_of
from finestep.rules.prompt_rate import RATES
from finestep.rules.recommendation import DerivationStep, NearRecipe, Recommendation, WhatIf
from finestep.rules.variants import LORA_PLUS_RATIO, VARIANTS
from finestep.rules.warmup import warmup_steps

TRAINED_METHODS = ("full", "lora", "qlora")
PROMPT_METHODS = ("prefix", "p-tuning", *RATES)
ASSUMED_LENGTH, ASSUMED_PARAMS = 1024, 7e9
SHOWN_NEIGHBOURS = 3
CPU_PARAMS = 1e9
SOLVED = (
    "score the untuned model on your task first: where it already solves it, every usual rate makes it worse "
    "(an 8B model at 89.5 % on GSM8K was best at 5e-6), and the interval does not hold"
)
ESTIMATE_MARGIN = 1.25
"""Estimates of tokens were up to 14 % too low where they were compared with a tokenizer (`survey/data_sample`)."""
BY_NAME = "its name"
"""The source of facts that nothing but a name gave."""
TOO_FEW_TO_SPLIT = 8
"""Fewer rows cannot be split into training and validation rows."""
FEW_ROWS = 1_000
"""Below this the best number of passes shrinks as the rate grows (evidence `practice-counts`); not in the rate itself."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What the user fixed; None = the rules decide. `noise_scale` is a measured gradient noise scale in rows."""

    method: str | None = None
    rank: int | None = None
    alpha: float | None = None
    batch: int | None = None
    num_epochs: float | None = None
    num_devices: int | None = None
    noise_scale: float | None = None
    target_modules: tuple[str, ...] | None = None
    retention: bool = False
    beta: float | None = None


def compose(model: ModelFacts, data: DataFacts | None, hardware: HardwareFacts | None, ask: Ask) -> Recommendation:
    """The recommended starting recipe for these facts."""
    draft = _draft(model, data, hardware, ask)
    answer = learning_rate(draft.request)
    estimates = _estimates(draft, answer)
    return Recommendation(
        method=draft.method,
        recipe=_recipe(draft, estimates) if draft.method in TRAINED_METHODS or draft.method == "rslora" else None,
        model=model,
        data=data,
        hardware=hardware,
        estimates=estimates,
        log10_center=answer.center.mean,
        log10_sd=answer.center.sd,
        neighbours=tuple(near_recipe(n) for n in answer.neighbours[:SHOWN_NEIGHBOURS]),
        derivation=tuple(derivation(answer)),
        what_ifs=tuple(_what_ifs(draft, answer)),
        assumptions=tuple(_assumptions(draft)),
        notes=tuple(_notes(draft, estimates)),
    )


@dataclass(frozen=True, slots=True)
class _Draft:
    """What is decided before the learning rate."""

    model: ModelFacts
    data: DataFacts | None
    hardware: HardwareFacts | None
    ask: Ask
    method: str
    rank: Estimate
    alpha: Estimate
    epochs: Estimate
    batch: Estimate
    memory: MemoryPlan
    request: RateRequest

    @property
    def num_rows(self) -> int:
        rows = self.data.num_rows if self.data else None
        return batch_size.ASSUMED_ROWS if rows is None else rows

    @property
    def num_steps(self) -> int:
        return duration.num_steps(self.num_rows, epochs=self.epochs.value, batch=int(self.batch.value))


def _draft(model: ModelFacts, data: DataFacts | None, hardware: HardwareFacts | None, ask: Ask) -> _Draft:
    method = ask.method or _method(model, hardware)
    rows = data.num_rows if data else None
    trained_tokens = data.num_trained_tokens if data else None
    rank = _fixed(ask.rank) or adapter.lora_rank(model, num_trained_tokens=trained_tokens)
    alpha = _fixed(ask.alpha) or adapter.lora_alpha()
    epochs = _fixed(ask.num_epochs) or duration.num_epochs(rows, is_encoder=model.is_encoder)
    classification = bool(data and data.task == "classification") or (model.is_encoder and not data)
    batch = _fixed(ask.batch) or batch_size.effective_batch_size(
        group_of(method),
        num_rows=rows,
        num_epochs=epochs.value,
        classification=classification,
        noise_scale=ask.noise_scale,
    )
    devices = ask.num_devices or (hardware.num_devices if hardware else 1)
    memory = plan_memory(
        model,
        hardware,
        method=trained_as(method),
        length=row_length(data, model),
        rank=int(rank.value),
        most=max(1, int(batch.value) // devices),
    )
    steps = None if rows is None else duration.num_steps(rows, epochs=epochs.value, batch=int(batch.value))
    request = RateRequest(
        method=method if method in (*TRAINED_METHODS, *PROMPT_METHODS, *PREFERENCE_METHODS) else "lora",
        task=AskedTask(
            beta=ask.beta,
            num_labels=data.num_labels if data else None,
            is_classification=classification,
            name=None if classification else "instruction",
        ),
        adapter=AskedAdapter(
            variant=method if method in VARIANTS else "lora",
            rank=int(rank.value),
            alpha=alpha.value,
            all_linear=ask.target_modules is None,
        ),
        model=_asked_model(model),
        batch=batch.value,
        steps=steps,
    )
    return _Draft(model, data, hardware, ask, method, rank, alpha, epochs, batch, memory, request)


def _asked_model(model: ModelFacts) -> AskedModel:
    """The model as the law of rates knows it."""
    return AskedModel(
        params=effective_parameters(model) or ASSUMED_PARAMS,
        active_params=model.num_active_parameters,
        name=_sweep_name(model),
        lineage=lineage(model),
        recipe_family=recipe_family(lineage(model)),
        is_encoder=model.is_encoder,
        is_encoder_decoder=model.is_encoder_decoder or (model.family or "").lower() in ENCODER_DECODERS,
    )


def _method(model: ModelFacts, hardware: HardwareFacts | None) -> str:
    """Encoders are trained in full; others by LoRA, in 4 bits where 16 do not fit."""
    if model.is_encoder:
        return "full"
    fits = plan_memory(model, hardware, method="lora", length=ASSUMED_LENGTH, rank=adapter.DEFAULT_RANK, most=1)
    return "lora" if fits.micro_batch != 0 else "qlora"


def group_of(method: str) -> str:
    """The method group that batch and recipes are looked up by."""
    if method in TRAINED_METHODS:
        return method
    if method in PREFERENCE_METHODS:
        return "lora" if objective_of(method)[1] else "full"
    return "prompt" if method in PROMPT_METHODS else "lora"


def trained_as(method: str) -> Method:
    """Which of the three memory profiles a method has."""
    if method in PREFERENCE_METHODS and not objective_of(method)[1]:
        return "full"
    return method if method in TRAINED_METHODS else "lora"  # type: ignore[return-value]


def row_length(data: DataFacts | None, model: ModelFacts) -> int:
    """Tokens of a long row: the 95th percentile, else 1,024, never beyond the context."""
    wanted = (data.length_p95 if data else None) or (128 if model.is_encoder else ASSUMED_LENGTH)
    return min(wanted, model.shape.context_length or wanted)


def _sweep_name(model: ModelFacts) -> str:
    from finestep.knowledge.models import known_model, known_names

    if known_model(model.name) is None:
        return model.name
    short = model.name.split("/")[-1].lower()
    return next((name for name in known_names() if name.split("/")[-1].lower() == short), model.name)


def _fixed(value: float | None) -> Estimate | None:
    return (
        None
        if value is None
        else Estimate(value=value, low=value, high=value, unit="", source="you", why="as you asked")
    )


def _estimates(draft: _Draft, answer: RateAnswer) -> dict[str, Estimate]:
    rate = rate_estimate(answer)
    retention = retention_estimate(answer, draft.method)
    if draft.ask.retention and _can_forget(draft):
        rate = retention
    model, steps = draft.model, draft.num_steps
    out = {
        "learning_rate": rate,
        "effective_batch_size": draft.batch,
        "num_epochs": draft.epochs,
        "schedule.warmup_steps": _warmup(steps),
        "optimizer.beta2": momentum.beta2(steps),
        "optimizer.weight_decay": regularisation.weight_decay(
            is_encoder=model.is_encoder, learning_rate=rate.value, num_steps=steps
        ),
        "optimizer.max_grad_norm": regularisation.max_grad_norm(),
    }
    if trained_as(draft.method) != "full" and draft.method not in PROMPT_METHODS:
        out |= {"lora.rank": draft.rank, "lora.alpha": draft.alpha}
    out |= _layer_estimates(draft, rate.value)
    if draft.memory.micro_batch:
        out["micro_batch_size"] = draft.memory.micro_batch_estimate()
    if draft.memory.need is not None:
        out["memory_bytes"] = draft.memory.memory_estimate()
    if _can_forget(draft):
        out["retention_learning_rate"] = retention
    return out | {"num_steps": _exact(steps, "steps", "updates-floor", "rows x epochs / batch")}


def _can_forget(draft: _Draft) -> bool:
    """Generating models whose own weights or adapters are trained have other abilities to lose."""
    return (
        not draft.request.task.is_classification
        and not draft.model.is_encoder
        and draft.method not in (*PROMPT_METHODS, *PREFERENCE_METHODS)
    )


def _layer_estimates(draft: _Draft, rate: float) -> dict[str, Estimate]:
    model, rows = draft.model, draft.data.num_rows if draft.data else None
    if not draft.request.task.is_classification:
        return {}
    return {
        "optimizer.layerwise_decay": layers.layerwise_decay(
            is_encoder=model.is_encoder, lineage=lineage(model), num_layers=model.shape.num_layers, num_rows=rows
        ),
        "optimizer.head_lr_multiplier": layers.head_multiplier(
            method="full" if draft.method == "full" else "lora",
            is_encoder=model.is_encoder,
            learning_rate=rate,
            num_steps=draft.num_steps,
            num_labels=draft.data.num_labels if draft.data else None,
        ),
    }


def _warmup(steps: int) -> Estimate:
    value = warmup_steps(ScheduleGroup(), steps)
    return Estimate(
        value=value,
        low=min(value, round(0.03 * steps)),
        high=max(value, round(0.1 * steps)),
        unit="steps",
        source="practice-counts",
        why="5 % of the run; its exact length matters little",
    )


def _exact(value: float, unit: str, source: str, why: str) -> Estimate:
    return Estimate(value=value, low=value, high=value, unit=unit, source=source, why=why)


def checked_recipe(**values: object) -> Recipe:
    """A recipe of what the rules found.

    Raises:
        BadInput: they found what no recipe may hold: the model or the data are beyond all that was measured.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        name, law, value = first_complaint(error)
        raise BadInput(
            "nothing can be recommended for such a model and batch, which are beyond all that was measured",
            value=f"{name} = {value}: {law}",
        ) from None


def _recipe(draft: _Draft, estimates: dict[str, Estimate]) -> Recipe:
    data, micro = draft.data, draft.memory.micro_batch or None
    devices = draft.ask.num_devices or (draft.hardware.num_devices if draft.hardware else 1)
    return checked_recipe(
        method=trained_as(draft.method),
        learning_rate=estimates["learning_rate"].value,
        effective_batch_size=max(int(draft.batch.value), devices),
        micro_batch_size=micro,
        num_devices=devices,
        num_epochs=draft.epochs.value,
        max_length=_max_length(data, draft.model),
        schedule=ScheduleGroup(name="linear"),
        optimizer=OptimizerGroup(
            beta2=estimates["optimizer.beta2"].value,
            weight_decay=estimates["optimizer.weight_decay"].value,
            layerwise_decay=_value(estimates, "optimizer.layerwise_decay", 1.0),
            head_lr_multiplier=_value(estimates, "optimizer.head_lr_multiplier", 1.0),
        ),
        lora=LoraGroup(
            rank=int(draft.rank.value),
            alpha=draft.alpha.value,
            use_rslora=draft.method == "rslora",
            target_modules=draft.ask.target_modules,
        ),
    )


def _value(estimates: dict[str, Estimate], name: str, otherwise: float) -> float:
    return estimates[name].value if name in estimates else otherwise


def _max_length(data: DataFacts | None, model: ModelFacts) -> int | None:
    """The longest row rounded up to 64, capped by the context; None when the data are unknown. An estimate gets room, so that
    nothing is cut where the tokenizer makes more tokens of a row."""
    if data is None or not data.length_max:
        return None
    margin = ESTIMATE_MARGIN if data.is_estimate else 1.0
    wanted = max(64, 64 * math.ceil(margin * data.length_max / 64))
    return min(wanted, model.shape.context_length or wanted)


def near_recipe(neighbour: Neighbour) -> NearRecipe:
    """A neighbour as plain values."""
    row = neighbour.recipe
    return NearRecipe(
        id=row.id,
        model=row.model,
        method=row.method,
        task=row.task,
        learning_rate=row.learning_rate or 0.0,
        moved_learning_rate=float(f"{neighbour.moved_learning_rate:.1e}"),
        effective_batch_size=row.effective_batch_size,
        similarity=round(min(neighbour.similarity, 1.0), 3),
        measured=row.origin.measured,
        source_url=row.origin.source_url,
    )


def derivation(answer: RateAnswer) -> list[DerivationStep]:
    """The terms as factors; the first carries the unit."""
    return [
        DerivationStep(
            name=t.name, factor=float(f"{10**t.dex:.3g}"), doubt=round(10**t.sd, 2), source=t.source, why=t.why
        )
        for t in answer.terms
    ]


def _assumptions(draft: _Draft) -> list[str]:
    model, out = draft.model, list[str]()
    rows = draft.data.num_rows if draft.data else None
    if model.num_parameters is None:
        out.append(f"the model's size is unknown: {ASSUMED_PARAMS / 1e9:.0f}B parameters assumed")
    if model.source == BY_NAME:
        out.append(f"`{model.name}` is not at hand: its size and family are taken from its name")
    if draft.request.model.lineage is None:
        out.append("the model's family is unknown: no family offset, wider interval")
    if draft.request.model.is_encoder_decoder:
        out.append(
            "encoder-decoders are outside of what was measured: answered as a decoder, with a much wider interval; "
            "finestep does not train them on text itself"
        )
    if draft.request.model.params > 1.01 * (model.num_parameters or float("inf")):
        size = f"{draft.request.model.params / 1e6:.0f}M"
        out.append(
            f"its layers share parameters: for the rate it counts as {size} (layers x width), not as what it stores"
        )
    if draft.data is None or draft.data.num_rows is None:
        out.append(f"no data given: {batch_size.ASSUMED_ROWS:,} rows assumed for the batch and the length of the run")
    if draft.data is None or draft.data.length_p95 is None:
        out.append(f"row length unknown: {row_length(draft.data, model):,} tokens assumed for memory")
    elif draft.data.is_estimate:
        out.append("tokens were estimated from a sample, without the model's tokenizer")
    if draft.hardware is None or draft.hardware.memory_bytes is None:
        out.append("memory of the device unknown: the micro-batch is left open")
    if rows and rows < TOO_FEW_TO_SPLIT:
        out.append("too few rows to hold any out: all of them count as training rows")
    return out


def _notes(draft: _Draft, estimates: dict[str, Estimate]) -> list[str]:
    out = list(draft.memory.notes)
    memory = draft.hardware.memory_bytes if draft.hardware else None
    if memory and draft.memory.micro_batch and "memory_bytes" in estimates and estimates["memory_bytes"].high > memory:
        out.append(
            "memory is tight: the estimate's upper end exceeds the device, so try the micro-batch before a long run"
        )
    if draft.ask.retention and not _can_forget(draft):
        out.append("`--retention` is ignored: this model has no other abilities that the run could cost")
    elif draft.ask.retention:
        out.append("the rate is the retention-safe one, as asked; expect a slightly higher loss on your own data")
    elif "retention_learning_rate" in estimates:
        safe = estimates["retention_learning_rate"].value
        out.append(f"to keep more of the model's other abilities use {safe:.1e} (`--retention`)")
    if draft.model.is_instruct and not draft.request.task.is_classification:
        out.append(SOLVED)
    if draft.method in PREFERENCE_METHODS:
        out += _preference_notes(draft)
    if draft.method in PROMPT_METHODS or (draft.method in VARIANTS and draft.method not in ("lora", "rslora")):
        out.append(
            f"finestep itself trains full, lora and qlora; these values are for training {draft.method} elsewhere"
        )
    if draft.method == "lora+":
        out.append(f"the rate is that of A; B takes {LORA_PLUS_RATIO:g} times as much (`loraplus_lr_ratio`)")
    if draft.hardware and draft.hardware.device == "cpu" and draft.request.model.params > CPU_PARAMS:
        out.append("a CPU takes days for a model of this size: name the card that will train it (`--gpu 24GB`)")
    rows = draft.data.num_rows if draft.data else None
    if rows and rows < FEW_ROWS and not draft.model.is_encoder and draft.epochs.value > 1:
        counted = f"{rows:,} row{'s' * (rows > 1)}"
        out.append(
            f"{counted}, seen {draft.epochs.value:g} times: memorising sets in early, and earlier at a high rate; "
            "watch the validation loss, and halve the rate if it turns up"
        )
    if rows and rows < TOO_FEW_TO_SPLIT:
        out.append(
            "nothing can be validated on so few rows, and `finestep tune` refuses them; every usual rate learns them by heart"
        )
    if draft.num_steps < batch_size.FEWEST_UPDATES:
        out.append(f"only {draft.num_steps} updates: little data; expect more from more rows than from any setting")
    return out


def _preference_notes(draft: _Draft) -> list[str]:
    """How little is known of such rates, and where they go."""
    name = objective_of(draft.method)[0]
    return [
        f"published {name.upper()} runs differ widely, and hardly any was swept: the interval is what {name.upper()} is trained at",
        f"finestep does not train {name.upper()} itself: `finestep tune --with` searches your own trainer's config",
    ]


def _what_ifs(draft: _Draft, answer: RateAnswer) -> list[WhatIf]:
    """Changes of the question, answered again, and measurements; the largest first."""
    out = [_measure(answer, draft.method)]
    for action, request in _other_requests(draft):
        other = learning_rate(request)
        change = other.center.mean - answer.center.mean
        effect = f"learning rate {rate_estimate(other).value:.1e}"
        if abs(change) > 0.02:
            out.append(WhatIf(action=action, effect=effect, importance=round(abs(change), 3)))
    if draft.data is None:
        out.append(
            WhatIf(action="give the data", effect="batch, length and rate are fitted to its size", importance=0.2)
        )
    if draft.ask.noise_scale is None and draft.batch.source != "you" and draft.method in TRAINED_METHODS:
        effect = f"the batch could be anything from {draft.batch.low:g} to {draft.batch.high:g}"
        out.append(WhatIf(action="measure the batch noise (`finestep probe`)", effect=effect, importance=0.1))
    return sorted(out, key=lambda item: -item.importance)[:4]


def _measure(answer: RateAnswer, method: str) -> WhatIf:
    low, high = answer.interval
    effect = f"measures where in {low:.1e} ... {high:.1e} the best rate of your data lies"
    return WhatIf(
        action="a few runs of your own" + (" (`finestep tune`)" if method in TRAINED_METHODS else ""),
        effect=effect,
        importance=round(math.log10(high / low) / 2, 3),
    )


def _other_requests(draft: _Draft) -> list[tuple[str, RateRequest]]:
    request, asked = draft.request, draft.request.adapter
    out: list[tuple[str, RateRequest]] = []
    if request.method in ("lora", "qlora") and not request.model.is_encoder:
        other_rank, other_alpha = 8 if asked.rank >= 32 else 64, 2 * asked.alpha
        ranked, scaled = replace(asked, rank=other_rank), replace(asked, alpha=other_alpha)
        out.append((f"rank {other_rank} instead of {asked.rank}", replace(request, adapter=ranked)))
        out.append((f"alpha {other_alpha:g} instead of {asked.alpha:g}", replace(request, adapter=scaled)))
    wider = replace(request, batch=4 * request.batch, steps=request.steps / 4 if request.steps else None)
    out.append((f"batch {4 * request.batch:g} instead of {request.batch:g}", wider))
    if request.steps:
        out.append(("ten times the data", replace(request, steps=10 * request.steps)))
    return out


def check_method(method: str | None) -> None:
    """Refuse a method that no rule knows."""
    known = (*TRAINED_METHODS, *(v for v in VARIANTS if v != "lora"), *PROMPT_METHODS, *PREFERENCE_METHODS)
    if method is not None and method not in known:
        from finestep.errors import did_you_mean

        raise BadInput(
            f"unknown method{did_you_mean(method, known)}", value=method, next_step="known: " + ", ".join(known)
        )
