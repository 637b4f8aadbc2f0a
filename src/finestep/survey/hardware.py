"""Hardware facts: the GPU that is there, or the one that the user names; it imports no torch and asks nvidia-smi at
most once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from finestep.errors import BadInput, did_you_mean
from finestep.facts import HardwareFacts

GIB = 2**30
SMI_TIMEOUT_S = 3.0
CARDS_GIB: dict[str, float] = {
    "t4": 16,
    "p100": 16,
    "v100": 16,
    "v100-32": 32,
    "a10": 24,
    "a10g": 24,
    "l4": 24,
    "a30": 24,
    "rtx3060": 12,
    "rtx3080": 10,
    "rtx3090": 24,
    "rtx4060": 8,
    "rtx4070": 12,
    "rtx4080": 16,
    "rtx4090": 24,
    "rtx5080": 16,
    "rtx5090": 32,
    "a4000": 16,
    "a5000": 24,
    "a6000": 48,
    "rtx6000ada": 48,
    "l40": 48,
    "l40s": 48,
    "a40": 48,
    "a100": 80,
    "a100-40": 40,
    "a100-80": 80,
    "h100": 80,
    "h100-94": 94,
    "h200": 141,
    "b200": 180,
    "gh200": 96,
    "mi250": 64,
    "mi300x": 192,
    "rtxpro6000": 96,
}
"""Memory as sold, in GB, which is near enough to GiB for an estimate."""
NO_BF16 = frozenset({"t4", "p100", "v100", "v100-32"})


def hardware_facts(gpu: str | None = None) -> HardwareFacts:
    """What a run may use: a card or size that the user names (`h100`, `24GB`, `4xh100`, `cpu`), else what is found
    here."""
    if gpu is not None:
        return _named(gpu)
    return _nvidia() or _apple() or _cpu()


def _named(text: str) -> HardwareFacts:
    match = re.fullmatch(r"(?:(\d+)\s*x\s*)?(.+)", text.strip().lower())
    count, what = (int(match[1] or 1), match[2]) if match else (1, "")
    if what == "cpu":
        return _cpu()
    size = re.fullmatch(r"([0-9.]+)\s*(gb|gib|g)?", what)
    name = re.sub(r"nvidia|geforce|[\s_]|(?<=\d)gb?$", "", what).replace("rtx-", "rtx")
    if f"rtx{name}" in CARDS_GIB:
        size, name = None, f"rtx{name}"
    if not size and name not in CARDS_GIB:
        raise BadInput(
            f"unknown GPU{did_you_mean(name, CARDS_GIB)}",
            value=text,
            next_step="give its memory (--gpu 24GB), or one of: " + ", ".join(sorted(CARDS_GIB)),
        )
    memory = _size(size[1], text) if size else CARDS_GIB[name]
    if count < 1:
        raise BadInput("the number of GPUs must be >= 1", value=text)
    return HardwareFacts(
        device="cuda", name=text, num_devices=count, memory_bytes=int(memory * GIB), supports_bf16=name not in NO_BF16
    )


def _size(number: str, text: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not 0.5 <= value <= 2000:
        raise BadInput("GPU memory must be between 0.5 and 2000 GB", value=text, next_step="e.g. --gpu 24GB")
    return value


def _nvidia() -> HardwareFacts | None:
    """The first NVIDIA card, or None without nvidia-smi or when it does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=SMI_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = [line.split(", ") for line in done.stdout.strip().splitlines()]
    if not lines or len(lines[0]) < 2:
        return None
    return _from_smi(lines)


def _from_smi(lines: list[list[str]]) -> HardwareFacts:
    memory = [int(float(line[1]) * 2**20) for line in lines if line[1].replace(".", "").isdigit()]
    capability = lines[0][2] if len(lines[0]) > 2 else ""
    modern = capability.split(".")[0].isdigit() and int(capability.split(".")[0]) >= 8
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = len([x for x in visible.split(",") if x.strip()]) if visible else len(lines)
    return HardwareFacts(
        device="cuda",
        name=lines[0][0],
        num_devices=max(1, min(count, len(lines))),
        memory_bytes=min(memory) if memory else None,
        supports_bf16=modern,
    )


def _apple() -> HardwareFacts | None:
    uname = os.uname() if hasattr(os, "uname") else None
    if uname is None or uname.sysname != "Darwin" or uname.machine != "arm64":
        return None
    return HardwareFacts(device="mps", name="Apple GPU", memory_bytes=_main_memory(), num_cpu_threads=os.cpu_count())


def _cpu() -> HardwareFacts:
    return HardwareFacts(device="cpu", name="CPU", memory_bytes=_main_memory(), num_cpu_threads=os.cpu_count())


def _main_memory() -> int | None:
    """Main memory in bytes, limited by the container's cgroup."""
    total = _physical()
    limits = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    for path in limits:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit() and total:
            total = min(total, int(text))
    return total


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
