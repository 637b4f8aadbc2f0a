"""Training speed on one GPU against the rivals that are installed: tokens a second, share of the device's peak, memory.

    python -m benchmarks.gpu [--sizes 0.5B 1B 3B] [--lengths 128 512 2048 4096] [--methods lora qlora full]
                             [--systems ...] [--rows 1] [--steps 30] [--json OUT]

Every rival trains a Llama of the given shape with random weights on the same random rows, in a process of its own, so that no rival's
memory or kernels reach another. The first third of the steps is not timed. Tokens are real tokens; there is no padding, since all rows
have one length: what saving padding is worth is measured by `benchmarks.packing` and depends on the data.

The share of the peak counts what the arithmetic needs: 6 operations a parameter and token for a full fine-tune, 4 for an adapter (no
gradients of frozen weights), and causal attention. Unpacking 4-bit weights and computing layers twice count as nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.packing import SIZES

SIZES["3B"] = {
    "hidden_size": 3072,
    "num_hidden_layers": 28,
    "intermediate_size": 8192,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
NEEDS: dict[str, tuple[str, ...]] = {
    "ours": (),
    "ours packed": (),
    "trainer": (),
    "trainer liger padding-free": ("liger_kernel",),
    "trainer compiled": (),
    "unsloth": ("unsloth",),
    "torchtune": ("torchtune",),
}
NOT_MEASURED = {
    "torchtune": "its models are built and loaded by its own recipes: run `tune run` on the same shape by hand"
}
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0, "4090": 165.0}
"""Dense bfloat16, from the makers' data sheets, by a part of the device's name."""
NUM_PACKED = 8


@dataclass(frozen=True)
class Job:
    """One rival on one shape."""

    system: str
    size: str
    method: str
    length: int
    rows: int
    num_steps: int


def num_parameters(size: str) -> int:
    """Parameters that a token passes: layers and output head; the table of embeddings costs no arithmetic.

    >>> round(num_parameters("1B") / 1e9, 2)
    1.24
    """
    shape = SIZES[size]
    width, inner, heads = shape["hidden_size"], shape["intermediate_size"], shape["num_attention_heads"]
    keys = width // heads * shape.get("num_key_value_heads", heads)
    layer = 2 * width * width + 2 * width * keys + 3 * width * inner
    return shape["num_hidden_layers"] * layer + width * shape.get("vocab_size", 4096)


def operations_a_token(size: str, method: str, length: int) -> float:
    """Floating-point operations that training needs for a token of a row of `length`."""
    shape = SIZES[size]
    passes = 6 if method == "full" else 4
    attention = (
        2 * shape["num_hidden_layers"] * shape["hidden_size"] * length
    )  # forward, causal: half of 4 x tokens x width
    return passes * num_parameters(size) + 3 * attention


def peak_tflops(device_name: str) -> float | None:
    """The device's peak, or None where it is not known."""
    return next((value for name, value in PEAK_TFLOPS.items() if name in device_name), None)


def why_not(system: str, method: str) -> str | None:
    """Why a rival is left out, or None."""
    missing = [name for name in NEEDS[system] if importlib.util.find_spec(name) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    if system in NOT_MEASURED:
        return NOT_MEASURED[system]
    if method == "qlora" and importlib.util.find_spec("bitsandbytes") is None:
        return "bitsandbytes is not installed"
    if system == "ours packed" and method == "full":
        return "full fine-tuning changes the base, so that trials cannot share it"
    if system == "unsloth" and method == "full":
        return "compared for adapters alone"
    return None


def measure(job: Job) -> dict[str, float]:
    """Seconds a step and the peak in bytes, in this process."""
    import torch

    from benchmarks.packing import write_model

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder, job.size)
        torch.cuda.reset_peak_memory_stats()
        seconds = (_ours if job.system.startswith("ours") else _rival)(job, folder)
    return {"seconds": seconds, "peak_bytes": torch.cuda.max_memory_allocated()}


def _ours(job: Job, folder: Path) -> float:
    import torch

    from benchmarks.packing import Rivals, Shape, filled_pack

    rivals = Rivals(folder, Shape(job.rows, job.length, job.num_steps), "cuda", method=job.method)
    recipes = rivals.recipes[: NUM_PACKED if job.system == "ours packed" else 1]
    pack = filled_pack(rivals.resident, [one.changed(micro_batch_size=job.rows) for one in recipes], emit=_say_notes)
    return _seconds_a_step(pack._micro_step, job.num_steps, torch.cuda.synchronize)


def _say_notes(kind: str, data: Any, *, trial: int) -> None:
    """A pass that stays plain, or a pack that shrank, is part of the result."""
    if kind == "note":
        print(f"trial {trial}: {data['text']}", file=sys.stderr, flush=True)


def _seconds_a_step(step: Any, num_steps: int, finish: Any) -> float:
    import time

    warm = max(3, num_steps // 3)
    for _ in range(warm):
        step()
    finish()
    began = time.perf_counter()
    for _ in range(num_steps - warm):
        step()
    finish()
    return (time.perf_counter() - began) / max(num_steps - warm, 1)


def _rival(job: Job, folder: Path) -> float:
    model, tokens = _model_of(job, folder), job.rows * job.length
    return _unsloth_loop(model, job) if job.system == "unsloth" else _trainer(model, job, tokens)


def _model_of(job: Job, folder: Path) -> Any:
    import torch
    import transformers

    if job.system == "unsloth":
        from unsloth import FastLanguageModel

        model, _ = FastLanguageModel.from_pretrained(
            str(folder), max_seq_length=job.length, load_in_4bit=job.method == "qlora", dtype=torch.bfloat16
        )
        return FastLanguageModel.get_peft_model(model, r=8, lora_alpha=16, lora_dropout=0)
    options: dict[str, Any] = {"dtype": torch.float32 if job.method == "full" else torch.bfloat16}
    if "padding-free" in job.system and importlib.util.find_spec("flash_attn"):
        options["attn_implementation"] = "flash_attention_2"
    if job.method == "qlora":
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, device_map="cuda", **options)
    if job.method == "full":
        return model
    import peft

    if job.method == "qlora":
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return peft.get_peft_model(
        model, peft.LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    )


def _trainer(model: Any, job: Job, tokens: int) -> float:
    import torch
    import transformers

    ids = torch.randint(0, 2500, (job.rows * (job.num_steps + 1), job.length))
    rows = [{"input_ids": row, "labels": row} for row in ids]
    times: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            import time

            torch.cuda.synchronize()
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=job.rows,
            max_steps=job.num_steps,
            learning_rate=1e-4,
            bf16=True,
            report_to="none",
            save_strategy="no",
            logging_steps=10,
            disable_tqdm=True,
            use_liger_kernel="liger" in job.system,
            torch_compile="compiled" in job.system,
        )
        collator = transformers.DataCollatorWithFlattening() if "padding-free" in job.system else None
        trainer = transformers.Trainer(
            model=model, args=arguments, train_dataset=rows, data_collator=collator, callbacks=[Clock()]
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    warm = max(3, job.num_steps // 3)
    return (times[-1] - times[warm - 1]) / (len(times) - warm)


def _unsloth_loop(model: Any, job: Job) -> float:
    import torch

    values = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(values, lr=1e-4, fused=True)
    ids = torch.randint(0, 2500, (job.rows, job.length), device="cuda")

    def step() -> None:
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(values, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return _seconds_a_step(step, job.num_steps, torch.cuda.synchronize)


def told(job: Job, found: dict[str, float], device_name: str) -> dict[str, Any]:
    """The line of a job: tokens a second of all its trials together, share of the peak, milliseconds, GiB."""
    trials = NUM_PACKED if job.system == "ours packed" else 1
    rate = trials * job.rows * job.length / found["seconds"]
    peak = peak_tflops(device_name)
    share = None if peak is None else rate * operations_a_token(job.size, job.method, job.length) / (peak * 1e12)
    return {
        **asdict(job),
        "ms_a_step": round(1000 * found["seconds"], 2),
        "tokens_per_s": round(rate),
        "share_of_peak": None if share is None else round(share, 4),
        "peak_gib": round(found["peak_bytes"] / 2**30, 2),
    }


def main() -> int:
    """Run every job in a process of its own and print one table; 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["0.5B", "1B", "3B"], choices=list(SIZES))
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 512, 2048, 4096])
    parser.add_argument("--methods", nargs="+", default=["lora", "qlora", "full"], choices=["lora", "qlora", "full"])
    parser.add_argument("--systems", nargs="+", default=list(NEEDS), choices=list(NEEDS))
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--timeout", type=int, default=300, help="Seconds for one rival on one shape.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(Job(**json.loads(options.child)))))
        return 0
    return _all(options)


def _all(options: argparse.Namespace) -> int:
    for system in options.systems:
        reasons = {method: why for method in options.methods if (why := why_not(system, method))}
        for why in sorted(set(reasons.values())):
            print(f"left out: {system} ({', '.join(m for m, w in reasons.items() if w == why)}): {why}")
    import torch

    if not torch.cuda.is_available():
        print("this benchmark needs a CUDA device, and PyTorch sees none; on a CPU: python -m benchmarks.packing")
        return 2
    name, results = torch.cuda.get_device_name(), []
    print(f"{name}, torch {torch.__version__}, rows of one length, {options.rows} a step and trial")
    print(
        "| model | method | length | system | ms a step | tokens/s | share of peak | GiB |\n|---|---|---|---|---|---|---|---|"
    )
    for size in options.sizes:
        for method in options.methods:
            for length in options.lengths:
                for system in options.systems:
                    if why_not(system, method) is None:
                        line = _in_a_child(
                            Job(system, size, method, length, options.rows, options.steps), options, name
                        )
                        results.append(line)
                        if options.json:
                            options.json.write_text(json.dumps(results, indent=1))
    return 0


def _in_a_child(job: Job, options: argparse.Namespace, device_name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--child", json.dumps(asdict(job))]
    cells = f"| {job.size} | {job.method} | {job.length} | {job.system} |"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.timeout)
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
        said = done.stderr.strip().splitlines() if isinstance(error, IndexError | ValueError) else [str(error)]
        print(f"{cells} failed: {said[-1][:120] if said else 'no answer'} | | | |", flush=True)
        return {**asdict(job), "failed": said[-1:] or ["no answer"]}
    line = told(job, found, device_name)
    share = "?" if line["share_of_peak"] is None else f"{line['share_of_peak']:.1%}"
    print(f"{cells} {line['ms_a_step']} | {line['tokens_per_s']:,} | {share} | {line['peak_gib']} |", flush=True)
    return line


if __name__ == "__main__":
    sys.exit(main())
