"""Do the exported files parse in the real frameworks, and read back the same recipe?

`python scripts/check_exports.py [--build build/exports] [framework ...]` makes one virtual environment a framework
(it shares torch and
what else it can with the environment that runs this), exports 20 recipes, has the framework's own parser read each,
and compares learning
rate, effective batch, warmup and LoRA settings. It needs the package index and a few hundred megabytes; CI need not
run it.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

PACKAGES: dict[str, list[str]] = {
    "hf": [],
    "trl": [],
    "llamafactory": ["llamafactory==0.9.5"],
    "ms-swift": ["ms-swift==4.6.0"],
    "axolotl": ["axolotl==0.19.0"],
    "litgpt": ["litgpt==0.5.13", "transformers", "requests", "jsonargparse[signatures]"],
    "unsloth": ["unsloth"],
    "torchtune": ["omegaconf"],
}
"""Framework -> what is installed into its own environment."""
SHARED = ("torch", "torchvision", "torchaudio", "triton", "bitsandbytes", "gradio", "xformers", "flash-attn")
"""Never installed there: torch is that of this environment, and the rest is not needed or would pull gigabytes of CUDA."""
STUBS = {"llamafactory": ("torchaudio",)}
"""Packages that are imported and not needed, and whose wheels do not load beside a torch without CUDA: empty ones stand in."""
STEPS = 480


def main() -> None:
    """Run all or the named frameworks; the exit status is 1 when any file fails."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("frameworks", nargs="*", default=[], help="default: all")
    parser.add_argument("--build", type=Path, default=Path("build/exports"))
    parser.add_argument("--train", action="store_true", help="train two steps on the shipped model, and read the logs")
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    parser.add_argument("--files", nargs="*", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        print(json.dumps([PROBES[options.probe](file) for file in options.files]))
        return
    if options.train:
        from train_exports import train_all

        sys.exit(train_all(options.frameworks, options.build, environment))
    failures = sum(check(name, options.build) for name in options.frameworks or PACKAGES)
    sys.exit(1 if failures else 0)


def check(framework: str, build: Path) -> int:
    """Export, parse, compare; returns the number of recipes that differ."""
    recipes = sample_recipes()
    files = [write(framework, recipe, build / framework / str(index)) for index, recipe in enumerate(recipes)]
    python = environment(framework, build / f"venv-{framework}")
    command = [str(python), __file__, "--probe", framework, "--files", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        print(f"{framework}: the parser failed: {done.stderr.strip().splitlines()[-1:] or done.stdout[-300:]}")
        return len(recipes)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    differences = [
        d for recipe, got in zip(recipes, found, strict=True) if (d := compare(expected(framework, recipe), got))
    ]
    print(
        f"{framework}: {len(recipes) - len(differences)} of {len(recipes)} recipes read back the same"
        + (f"; first difference: {differences[0]}" if differences else "")
    )
    return len(differences)


def sample_recipes() -> list[Any]:
    """Twenty recipes over methods, batches, schedules, targets, rsLoRA and clipping."""
    from finestep.recipe import Recipe

    out = []
    for index in range(20):
        method = ("lora", "qlora", "full", "lora")[index % 4]
        out.append(
            Recipe.model_validate(
                {
                    "method": method,
                    "learning_rate": (1e-5, 2.8e-4, 1e-3, 5.5e-6)[index % 4] * (1 + index / 7),
                    "effective_batch_size": (8, 16, 32, 64, 48)[index % 5],
                    "micro_batch_size": (1, 2, 4, 8, 4)[index % 5],
                    "num_devices": 1,
                    "num_epochs": (1.0, 2.0, 3.0)[index % 3],
                    "max_length": (512, 1024, 2048)[index % 3],
                    "seed": index,
                    "schedule": {
                        "name": ("linear", "cosine", "constant")[index % 3],
                        **({"warmup_steps": 24} if index % 2 else {"warmup_ratio": 0.05}),
                    },
                    "optimizer": {"beta2": (0.95, 0.98, 0.999)[index % 3], "max_grad_norm": (1.0, 0.3)[index % 2]},
                    "lora": {
                        "rank": (4, 8, 16, 32, 64)[index % 5],
                        "alpha": (16, 32, 64)[index % 3],
                        "use_rslora": index % 7 == 3,
                        "target_modules": ["q_proj", "v_proj"] if index % 6 == 5 else None,
                    },
                }
            )
        )
    return out


def write(framework: str, recipe: Any, folder: Path) -> Path:
    """The first exported file."""
    from finestep.export.exported import ExportContext
    from finestep.export.registry import exporter

    exported = exporter(framework).write(
        recipe, ExportContext(model="owner/model", data="data.json", num_steps=STEPS, device="cpu", precision="fp32")
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in exported.files.items():
        (folder / name).write_text(text)
    return folder / next(iter(exported.files))


def expected(framework: str, recipe: Any) -> dict[str, Any]:
    """What the framework must read. rsLoRA turns into the same scale where it is not offered."""
    from finestep.rules.warmup import warmup_steps

    values: dict[str, Any] = {
        "learning_rate": recipe.learning_rate,
        "effective_batch": recipe.effective_batch_size,
        "warmup_steps": warmup_steps(recipe.schedule, STEPS),
    }
    if recipe.method == "full":
        return values
    scale = recipe.lora.alpha / (math.sqrt(recipe.lora.rank) if recipe.lora.use_rslora else recipe.lora.rank)
    return {**values, "rank": recipe.lora.rank, "scale": scale}


def compare(wanted: dict[str, Any], got: dict[str, Any]) -> str:
    """The first difference in words, or an empty string. A scale may differ by the rounding of alpha to a whole
    number."""
    for key, value in wanted.items():
        tolerance = 0.5 / wanted["rank"] if key == "scale" else 1e-9 * abs(value)
        if got.get(key) is None or abs(got[key] - value) > tolerance:
            return f"{key}: wanted {value}, read {got.get(key)}"
    return ""


def environment(framework: str, folder: Path) -> Path:
    """A virtual environment that also sees the packages of this one; made once, by uv (`pip install uv`), in half a minute."""
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        site = next(folder.glob("lib/python*/site-packages"))
        (site / "zz_parent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        if PACKAGES[framework]:
            never = folder / "overrides.txt"
            never.write_text("".join(f"{name} ; sys_platform == 'never'\n" for name in SHARED))
            install = ["uv", "pip", "install", "-q", "--python", str(python), "--override", str(never)]
            subprocess.run([*install, *PACKAGES[framework]], check=True)
        for name in STUBS.get(framework, ()):
            (site / name).mkdir()
            (site / name / "__init__.py").touch()
    return python


def trainer_values(arguments: Any) -> dict[str, Any]:
    """What TrainingArguments and its children say."""
    return {
        "learning_rate": arguments.learning_rate,
        "warmup_steps": arguments.get_warmup_steps(STEPS),
        "effective_batch": arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps,
    }


def lora_values(rank: int, alpha: float, rslora: bool = False) -> dict[str, Any]:
    """Rank and scale."""
    return {"rank": rank, "scale": alpha / (math.sqrt(rank) if rslora else rank)}


def probe_hf(file: Path) -> dict[str, Any]:
    """HfArgumentParser and LoraConfig."""
    from peft import LoraConfig
    from transformers import HfArgumentParser, TrainingArguments

    (arguments,) = HfArgumentParser(TrainingArguments).parse_yaml_file(str(file))
    values, lora = trainer_values(arguments), file.with_name("lora_config.json")
    if lora.exists():
        config = LoraConfig(**json.loads(lora.read_text()))
        values |= lora_values(config.r, config.lora_alpha, config.use_rslora)
    return values


def probe_trl(file: Path) -> dict[str, Any]:
    """TrlParser."""
    from trl import ModelConfig, ScriptArguments, SFTConfig, TrlParser

    parser = TrlParser((ScriptArguments, SFTConfig, ModelConfig))
    _, training, model = parser.parse_args_and_config(["--config", str(file), "--bf16", "false", "--use_cpu", "true"])
    values = trainer_values(training)
    return values | (lora_values(model.lora_r, model.lora_alpha, model.use_rslora) if model.use_peft else {})


def probe_llamafactory(file: Path) -> dict[str, Any]:
    """LLaMA-Factory's own parser of all its argument groups."""
    import yaml
    from llamafactory.hparams.parser import _parse_train_args

    _, _, training, finetuning, _ = _parse_train_args(yaml.safe_load(file.read_text()))
    values = trainer_values(training)
    lora = finetuning.finetuning_type == "lora"
    return values | (lora_values(finetuning.lora_rank, finetuning.lora_alpha, finetuning.use_rslora) if lora else {})


def probe_axolotl(file: Path) -> dict[str, Any]:
    """Axolotl's pydantic schema."""
    import yaml
    from axolotl.utils.schemas.config import AxolotlInputConfig

    config = AxolotlInputConfig(**yaml.safe_load(file.read_text()))
    values = {
        "learning_rate": float(config.learning_rate),
        "warmup_steps": config.warmup_steps,
        "effective_batch": config.micro_batch_size * config.gradient_accumulation_steps,
    }
    return values | (
        lora_values(config.lora_r, config.lora_alpha, bool(config.peft_use_rslora)) if config.adapter else {}
    )


def probe_litgpt(file: Path) -> dict[str, Any]:
    """jsonargparse on the signature of litgpt's own entry point."""
    from jsonargparse import ArgumentParser
    from litgpt.finetune.full import setup as full
    from litgpt.finetune.lora import setup as lora

    is_lora = "lora_r:" in file.read_text()
    parser = ArgumentParser()
    parser.add_function_arguments(lora if is_lora else full)
    parser.add_argument("--config", action="config")
    config = parser.parse_args(["--config", str(file)])
    optimizer = config.optimizer if isinstance(config.optimizer, dict) else vars(config.optimizer)
    init = optimizer["init_args"] if isinstance(optimizer["init_args"], dict) else vars(optimizer["init_args"])
    values = {
        "learning_rate": init["lr"],
        "warmup_steps": config.train.lr_warmup_steps,
        "effective_batch": config.train.global_batch_size,
    }
    return values | (lora_values(config.lora_r, config.lora_alpha) if is_lora else {})


def probe_unsloth(file: Path) -> dict[str, Any]:
    """Unsloth's pydantic config, loaded from its file alone: importing the package needs a GPU."""
    import importlib.util
    import sysconfig as paths

    source = Path(paths.get_paths()["purelib"]) / "unsloth_cli/config.py"
    spec = importlib.util.spec_from_file_location("unsloth_cli_config", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["unsloth_cli_config"] = module
    spec.loader.exec_module(module)
    config = module.load_config(file)
    training, lora = config.training, config.lora
    values = {
        "learning_rate": training.learning_rate,
        "warmup_steps": training.warmup_steps,
        "effective_batch": training.batch_size * training.gradient_accumulation_steps,
    }
    is_lora = training.training_type == "lora"
    return values | (lora_values(lora.lora_r, lora.lora_alpha, lora.use_rslora) if is_lora else {})


def probe_torchtune(file: Path) -> dict[str, Any]:
    """OmegaConf, which reads torchtune's configs."""
    from omegaconf import OmegaConf

    config = OmegaConf.load(file)
    values = {
        "learning_rate": config.optimizer.lr,
        "warmup_steps": config.lr_scheduler.num_warmup_steps,
        "effective_batch": config.batch_size * config.gradient_accumulation_steps,
    }
    return values | (lora_values(config.model.lora_rank, config.model.lora_alpha) if "model" in config else {})


PROBES = {
    "hf": probe_hf,
    "trl": probe_trl,
    "llamafactory": probe_llamafactory,
    "axolotl": probe_axolotl,
    "litgpt": probe_litgpt,
    "unsloth": probe_unsloth,
    "torchtune": probe_torchtune,
}


if __name__ == "__main__":
    main()
