"""From somebody's training config to a study of it: which framework, what a full run is, where the search starts."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from finestep.errors import BadInput
from finestep.flows.review import Review, review_config
from finestep.foreign.config import ForeignConfig
from finestep.foreign.names import number, whole
from finestep.foreign.reading import read_config
from finestep.recipe import Recipe
from finestep.search.starting_point import start_words
from finestep.studies.with_data import PreparedRows, prepared_rows
from finestep.studies.with_launch import launcher_of, method_of_script
from finestep.studies.with_start import start_of_config
from finestep.study import EXTERNAL, DataSpec, FrameworkSpec, FullRun, Launch, ModelSpec, SearchSpec, StudySpec
from finestep.survey.hardware import hardware_facts
from finestep.survey.rows import read_rows
from finestep.trainers.data_places import rows_of
from finestep.trainers.framework import Framework
from finestep.trainers.frameworks import FRAMEWORKS, framework
from finestep.trainers.guards import parse_guard
from finestep.trainers.launch import check_launcher
from finestep.trainers.plan import LARGEST_WARMUP, steps_of, tree_of, value_at

SUFFIXES = (".yaml", ".yml", ".json")
DATA = "data"
"""Folder of the study that holds the split."""


@dataclass(frozen=True)
class Wishes:
    """What the user says besides the file. None = as the file, or as the framework, has it."""

    trainer: str | None = None
    data: DataSpec | None = None
    launcher: str | None = None
    python: str | None = None
    method: str | None = None
    epochs: float | None = None
    timeout_s: float | None = None
    parallel: int = 1
    guards: tuple[str, ...] = ()
    objective: str = "eval_loss"
    goal: str = "minimize"
    prefer: str = "quality"
    strategy: str = "auto"
    with_prior: bool = True
    with_baseline: bool = True


@dataclass(frozen=True)
class Planned:
    """A study of somebody's config, its review, and what to tell the user of its start."""

    spec: StudySpec
    review: Review
    notes: tuple[str, ...]


def study_name_of(path: Path, trainer: str) -> str:
    """A short name from the file's own and the framework's."""
    return re.sub(r"[^a-z0-9._-]+", "-", f"{path.stem}-{trainer}".lower()).strip("-.")[:60]


def planned_study(
    path: Path, wishes: Wishes, *, folder: Path | None, runs_folder: str, suffix: str = ""
) -> tuple[Planned, Path]:
    """(the study that a config asks for, its folder); rows are split and written there, nothing is started.

    Raises:
        BadInput: the file is no config of a framework that finestep drives, or cannot be searched.
    """
    text = _text(path)
    config = read_config(path)
    own = _framework(config, wishes, path)
    tree = tree_of(text, str(path))
    base = _working_dir(path, tree)
    task = _task(own, config, wishes, tree, base)
    launcher = wishes.launcher or launcher_of(own, replace(config, objective=task), path, tree)
    method = wishes.method or config.method or method_of_script(launcher, base)
    config = replace(config, method=method, objective=task)
    review = review_config(path, method=method, objective=task)
    name = study_name_of(path, own.name) + suffix
    place = folder or Path(runs_folder) / name
    rows = prepared_rows(own, config, tree, base=base, folder=(place / DATA).resolve(), data=wishes.data)
    recipe, notes = _recipe(own, config, tree, rows, wishes)
    wishes = replace(wishes, launcher=launcher)
    spec = _framework_spec(own, config, tree, recipe, rows, wishes, path=path, text=text, base=base)
    check_launcher(spec)
    for guard in wishes.guards:
        parse_guard(guard)
    start = start_of_config(review, config, recipe, with_prior=wishes.with_prior, beta=_beta(tree))
    study = StudySpec(
        name=name,
        model=ModelSpec(path=config.model or EXTERNAL),
        data=DataSpec(path=wishes.data.path if wishes.data else EXTERNAL),
        recipe=recipe,
        search=SearchSpec(
            strategy=wishes.strategy, start=start, prefer=wishes.prefer, with_baseline=wishes.with_baseline
        ),
        objective=wishes.objective,
        goal=wishes.goal,
        framework=spec,
    )
    said = [f"{own.words} trains, by `{spec.launch.launcher}`", rows.note, *notes, *_warmup_notes(spec, config)]
    said += [start_words(start)] if start is not None else []
    return Planned(study, review, tuple(filter(None, said))), place


def _text(path: Path) -> str:
    if path.suffix.lower() not in SUFFIXES:
        raise BadInput(
            "`--with` takes the config file of a trainer (YAML or JSON)",
            value=str(path),
            next_step="for a script, write its arguments into a YAML or JSON file, or use `--command`",
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("a config must be a readable text file", value=type(error).__name__, place=str(path)) from None


def _framework(config: ForeignConfig, wishes: Wishes, path: Path) -> Framework:
    if wishes.trainer is not None:
        return framework(wishes.trainer)
    if config.framework not in FRAMEWORKS:
        raise BadInput(
            "the trainer of this file is not known, or is none that finestep drives",
            value=config.layout or config.framework,
            place=str(path),
            next_step="say which it is (--trainer " + "|".join(FRAMEWORKS) + "), or use `--command`",
        )
    return FRAMEWORKS[config.framework]


def _task(own: Framework, config: ForeignConfig, wishes: Wishes, tree: dict[str, object], base: Path) -> str:
    """What is trained: as the launcher says, else the file, else what its rows hold: pairs are for DPO."""
    told = re.search(r"\b(?:trl|swift)\s+(\w+)\b", wishes.launcher or "")
    if told and told[1] != "rlhf":
        return {"pt": "pretraining"}.get(told[1], told[1])
    if config.objective != "sft" or own.name != "trl":
        return config.objective
    files = [wishes.data.path] if wishes.data else [str(file) for file in rows_of(own, tree, base).files]
    first = next((row for file in files for _, row in read_rows(file, limit=1)), {})
    if {"chosen", "rejected"} <= set(first):
        return "dpo"
    return "kto" if {"completion", "label"} <= set(first) else "sft"


def _working_dir(path: Path, tree: dict[str, object]) -> Path:
    """Where the file's relative paths begin: here, as its framework is started, or beside the file where they only exist there."""
    here, beside = Path.cwd(), path.resolve().parent
    named = [value for value in _texts(tree) if "/" in value or "." in value]
    found = {place: sum((place / value).exists() for value in named if _is_relative(value)) for place in (here, beside)}
    return beside if found[beside] > found[here] else here


def _is_relative(value: str) -> bool:
    return not value.startswith(("/", "~")) and len(value) < 500 and "\n" not in value


def _texts(tree: object) -> list[str]:
    if isinstance(tree, str):
        return [tree]
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return [text for one in inner for text in _texts(one)]


def _recipe(
    own: Framework, config: ForeignConfig, tree: dict[str, object], rows: PreparedRows, wishes: Wishes
) -> tuple[Recipe, list[str]]:
    """The file as a recipe: where a search begins, and what a full run is."""
    devices = config.batch.num_devices or _gpus_each(wishes.parallel)
    micro = config.batch.micro_batch_size or own.defaults.micro_batch
    batch = (
        config.batch.effective_batch_size
        or micro * (config.batch.accumulation_steps or own.defaults.accumulation) * devices
    )
    micro = min(micro, max(1, batch // devices))
    rate = config.value("learning_rate")
    if rate is None:
        raise BadInput(
            "the file states no learning rate, and its trainer's default is not known", place=str(config.framework)
        )
    method = (
        config.method if config.method in ("full", "lora", "qlora") else "lora" if config.adapter.lora_rank else "full"
    )
    epochs = wishes.epochs or config.value("num_epochs") or 1.0
    if config.length.max_steps and wishes.epochs is None and rows.num_rows:
        epochs = config.length.max_steps * batch / rows.num_rows
    values: dict[str, object] = {
        "method": method,
        "learning_rate": rate,
        "effective_batch_size": batch,
        "micro_batch_size": micro,
        "num_devices": devices,
        "num_epochs": min(max(epochs, 1e-3), 1000),
        "seed": whole(value_at(tree, own.names.seed)) or own.defaults.seed,
    }
    if config.adapter.lora_rank:
        values["lora"] = {
            "rank": config.adapter.lora_rank,
            "alpha": config.value("lora_alpha") or 2.0 * config.adapter.lora_rank,
        }
    notes = []
    if not own.validation.is_done:
        notes.append(f"{own.words} evaluates nothing: the mean training loss at the end of a run is compared instead")
    return Recipe.model_validate(values), notes


def _gpus_each(parallel: int) -> int:
    facts = hardware_facts()
    return max(1, facts.num_devices // parallel) if facts.device == "cuda" else 1


def _beta(tree: dict[str, object]) -> float | None:
    """Beta of a preference objective, by the names that TRL, ms-swift and LLaMA-Factory have for it."""
    found = next((number(tree[name]) for name in ("beta", "pref_beta", "dpo_beta") if name in tree), None)
    return found if found and found > 0 else None


def _framework_spec(
    own: Framework,
    config: ForeignConfig,
    tree: dict[str, object],
    recipe: Recipe,
    rows: PreparedRows,
    wishes: Wishes,
    *,
    path: Path,
    text: str,
    base: Path,
) -> FrameworkSpec:
    micro = recipe.first_micro_batch()
    rows_of_run = None
    full = None
    if config.length.max_steps and wishes.epochs is None:
        rows_of_run, full = config.length.max_steps * recipe.effective_batch_size, config.length.max_steps
    elif rows.num_rows:
        passes = recipe.accumulation_steps(micro)
        full = steps_of(own, rows.num_rows, micro * recipe.num_devices, passes, recipe.num_epochs)
    share, in_steps = _warmup(own, config, full)
    return FrameworkSpec(
        name=own.name,
        config=str(path.resolve()),
        text=text,
        task=config.objective,
        launch=Launch(
            launcher=wishes.launcher or "",
            python=str(Path(wishes.python).expanduser().absolute()) if wishes.python else None,
            working_dir=str(base),
            environment=_environment(config, rows),
            num_devices=recipe.num_devices,
            parallel=wishes.parallel,
            timeout_s=wishes.timeout_s,
        ),
        settings=rows.settings,
        full_run=FullRun(
            num_rows=rows.num_rows,
            num_eval_rows=rows.num_eval_rows,
            rows_of_run=rows_of_run,
            warmup_share=share,
            warmup_in_steps=in_steps,
            full_steps=full,
        ),
        guards=wishes.guards,
    )


def _warmup(own: Framework, config: ForeignConfig, full: int | None) -> tuple[float, bool]:
    """(warmup as a share of the run, whether the file states it in steps)."""
    stated = config.optimization.warmup if config.optimization.warmup is not None else own.defaults.warmup_steps
    if not stated:
        return 0.0, False
    if stated < 1:
        return stated, False
    return min(stated / full if full else 0.05, LARGEST_WARMUP), True


def _warmup_notes(spec: FrameworkSpec, config: ForeignConfig) -> list[str]:
    stated = config.optimization.warmup or framework(spec.name).defaults.warmup_steps
    if (
        spec.full_run.warmup_in_steps
        and spec.full_run.full_steps
        and stated > LARGEST_WARMUP * spec.full_run.full_steps
    ):
        return [
            f"a warmup of {stated:g} steps is over half of a run of {spec.full_run.full_steps}: half of each run is used"
        ]
    if spec.full_run.warmup_in_steps and not spec.full_run.full_steps:
        return ["the length of a full run is not known here: 5 % of each run is used for its warmup"]
    return []


def _environment(config: ForeignConfig, rows: PreparedRows) -> dict[str, str]:
    """Nothing is looked for on the Hub where model and rows are here."""
    is_local = config.model is not None and Path(config.model).expanduser().is_dir()
    return {"HF_HUB_OFFLINE": "1"} if is_local and rows.num_rows else {}
