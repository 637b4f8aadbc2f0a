"""Eight LoRA trials together against eight one after the other: same model, rows, rates and steps, interleaved.

    python -m benchmarks.packing [--threads 1 2] [--rounds 3] [--json OUT]
    python -m benchmarks.packing --device cuda --model 0.5B 1B --shapes 1x128 1x512 1x2048 --threads 1 --rounds 1 --trials 2

Rivals: `ours` is the same engine one trial at a time (the gain of packing itself); `peft` is a plain PyTorch loop with PEFT that
reloads the model for every trial; `trainer` is the HF Trainer with PEFT, reloading too. Each is timed at the same micro-batch and,
where the batch can be cut, at a quarter of it; its best counts as well. Times a step leave the set-up of a trial out, the ratios
count it. What `--pack auto` would choose is printed beside. The packed run starts in a process with the worker's own settings.

`--trials N` times the rivals, who do the same work for every trial, on N of the eight trials and multiplies. On a GPU each rival's
peak of allocated memory is told too: what is there while it runs and was not before, and the base that packed and `ours` share.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RATES = (1e-4, 3e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
SIZES: dict[str, dict[str, int]] = {
    "7M": {"hidden_size": 256, "num_hidden_layers": 6, "intermediate_size": 688, "num_attention_heads": 4},
    "0.5B": {
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "intermediate_size": 4864,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
    },
    "1B": {
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "intermediate_size": 8192,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
}
STEPS_OF_CPU = {(1, 64): 12, (4, 64): 8, (16, 64): 4, (1, 256): 8, (4, 256): 4, (16, 256): 2}


@dataclass(frozen=True)
class Shape:
    """Rows of a micro-batch (here also the effective batch) and tokens a row."""

    rows: int
    length: int
    num_steps: int

    @property
    def tokens(self) -> int:
        return self.rows * self.length


def write_model(folder: Path, size: str) -> None:
    """A Llama of this shape with random weights, and the shipped tokenizer."""
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from finestep.survey.shipped import SHIPPED_MODEL

    shape = {"vocab_size": 4096, "num_key_value_heads": SIZES[size]["num_attention_heads"], **SIZES[size]}
    config = LlamaConfig(max_position_embeddings=4096, tie_word_embeddings=False, **shape)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config)
    model.to(torch.bfloat16 if torch.cuda.is_available() else torch.float32).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(SHIPPED_MODEL / name, folder / name)


def resident_of(folder: Path, recipe: Any, device: str, *, placement: Any = None) -> Any:
    """That model with a few rows of text, for rows of its own to be put in their place."""
    from finestep.study import DataSpec, ModelSpec
    from finestep.train.resident import Resident

    data = folder / "rows.jsonl"
    data.write_text("\n".join(json.dumps({"text": f"row {n} of many"}) for n in range(40)))
    return Resident(ModelSpec(path=str(folder), device=device), DataSpec(path=str(data)), recipe, placement=placement)


def filled_pack(resident: Any, recipes: Sequence[Any], *, emit: Callable[..., None]) -> Any:
    """A pack with a trial of each recipe in it, which writes nothing."""
    from finestep.protocol import TrialRequest
    from finestep.train.loop import Pack

    waiting = [
        TrialRequest(number=number, recipe=recipe, folder="/nowhere", checkpoint_every_s=1e9)
        for number, recipe in enumerate(recipes)
    ]
    pack = Pack(
        resident,
        emit=emit,
        should_stop=lambda: False,
        take=lambda: waiting.pop(0) if waiting else None,
        num_lanes=len(recipes),
    )
    pack.members.fill(pack.take)
    return pack


class Rivals:
    """One model and one shape; every rival makes the same steps of the same eight trials."""

    def __init__(
        self,
        folder: Path,
        shape: Shape,
        device: str,
        *,
        num_trials: int = len(RATES),
        placement: Any = None,
        method: str = "lora",
    ):
        import torch

        self.folder, self.shape, self.device = folder, shape, torch.device(device)
        self.recipes = [self._recipe(rate, shape.rows).changed(method=method) for rate in RATES]
        self.resident = resident_of(folder, self.recipes[0], device, placement=placement)
        self.resident.data = self._synthetic()
        self.ids = torch.from_numpy(self.resident.data.train.ids.reshape(-1, shape.length)).to(self.device)
        self.base_bytes = sum(value.numel() * value.element_size() for value in self.resident.base.parameters())
        self.one_by_one, self.share = self.recipes[:num_trials], len(RATES) / num_trials

    def warm_up(self, name: str, micro: int) -> None:
        """One trial of a rival, not timed; of `packed` all."""
        kept, self.one_by_one = self.one_by_one, self.recipes[:1]
        getattr(self, name)(micro)
        self.one_by_one = kept

    def timed(self, name: str, micro: int) -> tuple[float, float, float]:
        """(seconds of set-up, seconds of steps) for all eight trials, and the peak in GiB (0 on a CPU)."""
        import torch

        gc.collect()
        before = 0
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated() - (self.base_bytes if name in ("packed", "ours") else 0)
        share = 1.0 if name == "packed" else self.share
        setup, steps = getattr(self, name)(micro)
        peak = torch.cuda.max_memory_allocated() - before if self.device.type == "cuda" else 0
        return share * setup, share * steps, peak / 2**30

    def packed(self, micro: int) -> tuple[float, float]:
        """(seconds of set-up, seconds of steps) for all eight at once; the rivals' are those of `one_by_one`."""
        return self._engine([self.recipes], micro)

    def ours(self, micro: int) -> tuple[float, float]:
        """The same engine, one trial at a time."""
        return self._engine([[recipe] for recipe in self.one_by_one], micro)

    def peft(self, micro: int) -> tuple[float, float]:
        """A plain loop that loads the model anew for every trial."""
        import torch

        setup = steps = 0.0
        for recipe in self.one_by_one:
            began = self._now()
            model, parameters = self._loaded()
            optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.0, fused=True)
            model.train()
            middle = self._now()
            for step in range(self.shape.num_steps):
                rows = self.ids[step * self.shape.rows : (step + 1) * self.shape.rows]
                units = rows.shape[0] * (self.shape.length - 1)
                for part in rows.split(micro):
                    with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
                        loss = model(input_ids=part, labels=part, num_items_in_batch=units).loss
                    loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                loss.item()
            setup, steps = setup + middle - began, steps + self._now() - middle
            del model, parameters, optimizer
        return setup, steps

    def trainer(self, micro: int) -> tuple[float, float]:
        """The HF Trainer with PEFT, loading the model anew for every trial."""
        import torch
        import transformers

        ids = self.ids.cpu()

        class Rows(torch.utils.data.Dataset):
            def __len__(self) -> int:
                return len(ids)

            def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
                return {"input_ids": ids[place], "labels": ids[place]}

        now, num_steps = self._now, self.shape.num_steps

        class Clock(transformers.TrainerCallback):
            """When the first step begins and the last one ends: making a Trainer is set-up."""

            began = ended = 0.0

            def on_step_begin(self, arguments: Any, state: Any, *_: Any, **__: Any) -> None:
                self.began = self.began or now()

            def on_step_end(self, arguments: Any, state: Any, *_: Any, **__: Any) -> None:
                self.ended = now() if state.global_step == num_steps else 0.0

        setup = steps = 0.0
        for recipe in self.one_by_one:
            began, clock = self._now(), Clock()
            model, _ = self._loaded()
            with tempfile.TemporaryDirectory() as folder:
                arguments = transformers.TrainingArguments(
                    folder,
                    per_device_train_batch_size=micro,
                    gradient_accumulation_steps=self.shape.rows // micro,
                    max_steps=self.shape.num_steps,
                    learning_rate=recipe.learning_rate,
                    lr_scheduler_type="constant",
                    bf16=self.device.type == "cuda",
                    use_cpu=self.device.type == "cpu",
                    report_to="none",
                    save_strategy="no",
                    logging_steps=10,
                    disable_tqdm=True,
                )
                trainer = transformers.Trainer(model=model, args=arguments, train_dataset=Rows(), callbacks=[clock])
                trainer.remove_callback(transformers.PrinterCallback)
                trainer.train()
            whole, own = self._now() - began, clock.ended - clock.began
            setup, steps = setup + whole - own, steps + own
            del model, trainer
        return setup, steps

    def choice(self) -> str:
        """What `--pack auto` chooses here."""
        from finestep.train.lane_plan import plan_lanes

        plan = plan_lanes(self.resident, self.recipes[0], asked=None, most_lanes=len(RATES), row_limit=None)
        return f"{plan.num_lanes}"

    def _engine(self, groups: list[list[Any]], micro: int) -> tuple[float, float]:
        setup = steps = 0.0
        for group in groups:
            began = self._now()
            recipes = [recipe.changed(micro_batch_size=micro) for recipe in group]
            pack = filled_pack(self.resident, recipes, emit=_without_shrinking)
            middle = self._now()
            for _ in range(self.shape.num_steps * (self.shape.rows // micro)):
                pack._micro_step()
            setup, steps = setup + middle - began, steps + self._now() - middle
            for lane in pack.lanes:
                lane.leave()
        return setup, steps

    def _loaded(self) -> tuple[Any, list[Any]]:
        import peft
        import torch
        from transformers import LlamaForCausalLM

        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        base = LlamaForCausalLM.from_pretrained(self.folder, dtype=dtype).to(self.device)
        config = peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model = peft.get_peft_model(base, config)
        return model, [value for value in model.parameters() if value.requires_grad]

    def _recipe(self, rate: float, batch: int) -> Any:
        from finestep.recipe import Recipe

        return Recipe(
            learning_rate=rate,
            effective_batch_size=batch,
            lora={"rank": 8, "alpha": 16},  # type: ignore[arg-type]
            schedule={"name": "constant", "warmup_steps": 0},  # type: ignore[arg-type]
        )

    def _synthetic(self) -> Any:
        """Rows of equal length that can be learned: a noisy chain of tokens."""
        import numpy as np

        from finestep.train.token_rows import TokenRows
        from finestep.train.tokens import TrainingData

        draw, length, num_rows = (
            np.random.default_rng(3),
            self.shape.length,
            self.shape.rows * (self.shape.num_steps + 2),
        )
        follows = draw.integers(0, 2500, 2500)
        ids = draw.integers(0, 2500, (num_rows, length))
        for place in range(1, length):
            ids[:, place] = np.where(draw.random(num_rows) < 0.85, follows[ids[:, place - 1]], ids[:, place])
        rows = TokenRows(ids.reshape(-1), np.ones(num_rows * length, dtype=bool), np.arange(num_rows + 1) * length)
        return TrainingData(rows, rows, (), length, 0)

    def _now(self) -> float:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def _without_shrinking(kind: str, data: Any, *, trial: int) -> None:
    """A pack that ran out of memory goes on with fewer trials, and is no measurement of eight."""
    if kind == "note" and "out of memory" in data["text"]:
        raise MemoryError(data["text"])


def measure(folder: Path, shape: Shape, device: str, rounds: int, num_trials: int) -> dict[str, Any]:
    """Milliseconds a trial-step and ratios of whole times, medians of the rounds."""
    rivals = Rivals(folder, shape, device, num_trials=num_trials)
    micros = [shape.rows] + ([shape.rows // 4] if shape.rows >= 4 else [])
    jobs = [("packed", shape.rows)]
    jobs += [(name, micro) for name in ("ours", "peft", "trainer") for micro in micros]
    for name in ("packed", "ours", "peft", "trainer"):
        rivals.warm_up(name, shape.rows)
    times: dict[tuple[str, int], list[tuple[float, float, float]]] = {job: [] for job in jobs}
    for number in range(rounds):
        for job in jobs[number % len(jobs) :] + jobs[: number % len(jobs)]:
            times[job].append(rivals.timed(*job))
    per_step = {
        key: 1000 * statistics.median(steps for _, steps, _ in found) / len(RATES) / shape.num_steps
        for key, found in times.items()
    }
    whole = {key: statistics.median(setup + steps for setup, steps, _ in found) for key, found in times.items()}
    packed = ("packed", shape.rows)
    out: dict[str, Any] = {
        "rows": shape.rows,
        "length": shape.length,
        "num_steps": shape.num_steps,
        "timed_trials_of_rivals": num_trials,
        "auto_lanes": rivals.choice(),
        "ms_per_trial_step": {f"{name} x{micro}": round(value, 2) for (name, micro), value in per_step.items()},
        "setup_s": {f"{name} x{micro}": round(found[0][0], 2) for (name, micro), found in times.items()},
    }
    for name in ("ours", "peft", "trainer"):
        out[f"{name}_steps_only"] = round(per_step[name, shape.rows] / per_step[packed], 3)
        out[f"{name}_same_micro"] = round(whole[name, shape.rows] / whole[packed], 3)
        out[f"{name}_best_micro"] = round(min(whole[name, micro] for micro in micros) / whole[packed], 3)
    if device == "cuda":
        peaks = {key: max(peak for _, _, peak in found) for key, found in times.items()}
        out["peak_memory_gib"] = {f"{name} x{micro}": round(peak, 2) for (name, micro), peak in peaks.items()}
        out["tokens_per_s"] = {
            f"{name} x{micro}": round(1000 * shape.tokens / each) for (name, micro), each in per_step.items()
        }
    return out


def main() -> None:
    """Measure every thread count in a process of its own, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", nargs="+", default=["7M"], choices=list(SIZES))
    parser.add_argument("--shapes", nargs="+", default=["1x64", "4x64", "16x64", "1x256", "4x256", "16x256"])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--trials", type=int, default=len(RATES), help="Trials of each rival that are timed.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options)
        return
    from finestep.executors.process import worker_environment

    results = []
    print(
        f"{'model':<6}{'thr':>4}{'shape':>8}{'packed ms':>11}{'ours':>9}{'peft':>9}{'trainer':>9}"
        f"{'  gain over ours / peft / trainer':<36}{'best micro':<22}{'steps only':<22}{'auto':>5}"
    )
    for threads in options.threads:
        arguments = ["--child", "--threads", str(threads), *_forwarded(options)]
        environment = {**worker_environment(), "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        with subprocess.Popen(
            [sys.executable, "-m", "benchmarks.packing", *arguments], stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            for line in process.stdout or ():
                if line.startswith("{"):
                    results.append(json.loads(line))
                    _print(results[-1])
                    if options.json:
                        options.json.write_text(json.dumps(results, indent=1))


def _forwarded(options: argparse.Namespace) -> list[str]:
    steps = ["--steps", str(options.steps)] if options.steps else []
    return [
        *("--rounds", str(options.rounds), "--trials", str(options.trials), "--device", options.device),
        *("--model", *options.model, "--shapes", *options.shapes, *steps),
    ]


def _child(options: argparse.Namespace) -> None:
    import warnings

    import torch
    import transformers

    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(options.threads[0])
    for size in options.model:
        with tempfile.TemporaryDirectory() as folder:
            write_model(Path(folder), size)
            for text in options.shapes:
                rows, _, length = text.partition("x")
                steps = options.steps or STEPS_OF_CPU.get((int(rows), int(length)), 8)
                shape = Shape(int(rows), int(length), steps)
                try:
                    found = measure(Path(folder), shape, options.device, options.rounds, options.trials)
                except (RuntimeError, MemoryError) as error:
                    print(f"{size} {text} failed: {error}", file=sys.stderr, flush=True)
                    continue
                print(json.dumps({"model": size, "threads": options.threads[0], **found}), flush=True)


def _print(found: dict[str, Any]) -> None:
    times, rows = found["ms_per_trial_step"], found["rows"]
    gains = " / ".join(f"{found[f'{name}_same_micro']:.2f}" for name in ("ours", "peft", "trainer"))
    best = " / ".join(f"{found[f'{name}_best_micro']:.2f}" for name in ("ours", "peft", "trainer"))
    steps = " / ".join(f"{found[f'{name}_steps_only']:.2f}" for name in ("ours", "peft", "trainer"))
    print(
        f"{found['model']:<6}{found['threads']:>4}{found['rows']:>4}x{found['length']:<4}{times[f'packed x{rows}']:>10.1f}"
        f"{times[f'ours x{rows}']:>9.1f}{times[f'peft x{rows}']:>9.1f}{times[f'trainer x{rows}']:>9.1f}"
        f"  {gains:<34}{best:<22}{steps:<22}{found['auto_lanes']:>5}",
        flush=True,
    )
    for key, unit in (("tokens_per_s", "tokens/s"), ("peak_memory_gib", "GiB at the peak")):
        if key in found:
            print(f"{'':10}{unit}: {', '.join(f'{name} {value:,}' for name, value in found[key].items())}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
