"""Step time of our loop against a bare PyTorch loop and the HF Trainer: same model, batch, data and adapter, interleaved.

    python -m benchmarks.step_time [--rounds 5] [--steps 40] [--json OUT]

The bare loop is what a careful person writes: PEFT, fused AdamW, clipping, a learning-rate schedule, one `.item()` a step, no records.
Each round times every rival once in an order that rotates; figures are medians of the rounds, and ratios are of medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from finestep.protocol import TrialRequest
from finestep.recipe import Recipe
from finestep.rules.schedule import learning_rate_at
from finestep.rules.warmup import warmup_steps
from finestep.study import DataSpec, ModelSpec
from finestep.survey.shipped import SHIPPED_DATA, SHIPPED_MODEL
from finestep.train.batch import collate
from finestep.train.loop import Pack
from finestep.train.order import Order
from finestep.train.resident import Resident
from finestep.train.whole_model import trained


class Case:
    """One setting; every rival makes the same steps on the same rows."""

    def __init__(self, method: str, batch: int, num_steps: int):
        self.recipe = Recipe(
            method=method,
            learning_rate=1e-3,
            effective_batch_size=batch,
            micro_batch_size=batch,
            num_epochs=1,
            evaluation={"num_evaluations": 1},
        )
        self.num_steps = num_steps
        self.resident = Resident(
            ModelSpec(path=str(SHIPPED_MODEL), device="cpu"),
            DataSpec(path=str(SHIPPED_DATA), max_length=128),
            self.recipe,
        )
        self.order = Order(self.resident.data.train.lengths, self.recipe)

    def ours(self) -> float:
        """Seconds a step of our own loop, with all its records."""
        with tempfile.TemporaryDirectory() as folder:
            waiting = [TrialRequest(number=0, recipe=self.recipe, folder=folder, checkpoint_every_s=1e9)]
            pack = Pack(
                self.resident,
                emit=lambda *_, **__: None,
                should_stop=lambda: False,
                take=lambda: waiting.pop() if waiting else None,
            )
            pack.members.fill(pack.take)
            seconds = _timed(pack._micro_step, self.num_steps)
            pack.lanes[0].leave()
            return seconds

    def bare(self) -> float:
        """Seconds a step of a bare PyTorch loop."""
        model, data = self.resident.begin(self.recipe), self.resident.data
        values = list(trained(model).values())
        optimizer = torch.optim.AdamW(values, lr=1e-3, weight_decay=0.0, fused=True)
        warmup = warmup_steps(self.recipe.schedule, self.order.num_steps)
        model.train()
        state = {"step": 0}

        def step() -> None:
            state["step"] += 1
            rows = self.order.rows_of_step(state["step"])
            rate = learning_rate_at(
                state["step"], peak=1e-3, num_steps=self.order.num_steps, warmup=warmup, schedule=self.recipe.schedule
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = collate(data.train, rows, pad_id=data.pad_id, device=torch.device("cpu"))
            logits = model(input_ids=batch.ids_NS, use_cache=False).logits
            labels = batch.labels_NS[:, 1:]
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1).float(), labels.flatten(), ignore_index=-100
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(values, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()

        return _timed(step, self.num_steps)

    def trainer(self) -> float:
        """Seconds a step of the HF Trainer, timed between its first and last step."""
        import transformers

        model, data = self.resident.begin(self.recipe), self.resident.data
        rows = [int(row) for step in range(1, self.num_steps + 4) for row in self.order.rows_of_step(step)]

        class Rows(torch.utils.data.Dataset):
            def __len__(self) -> int:
                return len(rows)

            def __getitem__(self, place: int) -> int:
                return rows[place]

        def to_batch(chosen: list[int]) -> dict[str, torch.Tensor]:
            batch = collate(data.train, chosen, pad_id=data.pad_id, device=torch.device("cpu"))
            return {"input_ids": batch.ids_NS, "attention_mask": batch.attention_NS, "labels": batch.labels_NS}

        times: list[float] = []

        class Clock(transformers.TrainerCallback):
            def on_step_end(self, *_: Any, **__: Any) -> None:
                times.append(time.perf_counter())

        class InOrder(transformers.Trainer):
            def _get_train_sampler(self, *_: Any) -> Any:
                return torch.utils.data.SequentialSampler(self.train_dataset)

        with tempfile.TemporaryDirectory() as folder:
            arguments = transformers.TrainingArguments(
                folder,
                per_device_train_batch_size=self.recipe.effective_batch_size,
                max_steps=self.num_steps + 3,
                learning_rate=1e-3,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                use_cpu=True,
                dataloader_num_workers=0,
                remove_unused_columns=False,
                logging_steps=1,
            )
            trainer = InOrder(model, arguments, train_dataset=Rows(), data_collator=to_batch, callbacks=[Clock()])
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.train()
        return (times[-1] - times[2]) / (len(times) - 3)


def _timed(step: Callable[[], object], num_steps: int) -> float:
    for _ in range(3):
        step()
    began = time.perf_counter()
    for _ in range(num_steps):
        step()
    return (time.perf_counter() - began) / num_steps


def measure(case: Case, rounds: int) -> dict[str, float]:
    """Medians in milliseconds a step, and the ratios of ours to the rivals."""
    rivals: list[tuple[str, Callable[[], float]]] = [
        ("ours", case.ours),
        ("bare", case.bare),
        ("trainer", case.trainer),
    ]
    times: dict[str, list[float]] = {name: [] for name, _ in rivals}
    for number in range(rounds):
        for name, time_it in rivals[number % 3 :] + rivals[: number % 3]:
            times[name].append(time_it() * 1000)
    median = {name: statistics.median(values) for name, values in times.items()}
    paired = [a / b for a, b in zip(times["ours"], times["bare"], strict=True)]
    return {
        **{f"{name}_ms": round(value, 2) for name, value in median.items()},
        "ours_to_bare": round(statistics.median(paired), 3),
        "ours_to_trainer": round(median["ours"] / median["trainer"], 3),
    }


def main() -> None:
    """Measure all cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = {}
    print(f"torch {torch.__version__}, {options.threads} threads, {options.rounds} rounds of {options.steps} steps")
    print(f"{'case':<14}{'ours ms':>9}{'bare ms':>9}{'Trainer ms':>12}{'ours/bare':>11}{'ours/Trainer':>14}")
    for method, batch in (("lora", 4), ("lora", 16), ("full", 16)):
        found = results[f"{method} x {batch}"] = measure(Case(method, batch, options.steps), options.rounds)
        print(
            f"{method + ' x ' + str(batch):<14}{found['ours_ms']:>9}{found['bare_ms']:>9}{found['trainer_ms']:>12}"
            f"{found['ours_to_bare']:>11}{found['ours_to_trainer']:>14}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
