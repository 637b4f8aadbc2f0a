"""Operations that one training step dispatches: a machine-independent count of what a GPU would have to launch.

    python -m benchmarks.step_operations [--layers 24] [--length 128] [--lanes 1 8] [--json OUT]

A short row on a GPU takes as long as its kernels take to launch, so that their number is its time. Numbers do not depend on the
width of the model, and a CPU dispatches the same operations as a GPU, except inside attention. Views launch nothing and are left
out. *Reads* are transfers of results to the host: each of them waits until the device has finished. The bf16 case is the path of
CUDA: weights in bfloat16, adapters in float32.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

VIEWS = frozenset(
    {"view", "_unsafe_view", "t", "transpose", "unsqueeze", "squeeze", "expand", "slice", "select", "permute", "detach"}
    | {
        "alias",
        "as_strided",
        "split",
        "unbind",
        "unflatten",
        "_reshape_alias",
        "split_with_sizes",
        "lift_fresh",
        "narrow",
    }
)
READS_OF_NUMBERS = ("_local_scalar_dense", "nonzero")
CASTS = ("_to_copy",)
RATE = 1e-4


class Operations(TorchDispatchMode):
    """Counts what is dispatched while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        space, _, name = function._schema.name.partition("::")
        if space != "profiler":
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))

    @property
    def num_launches(self) -> int:
        """Operations that launch a kernel: all but views."""
        return sum(count for name, count in self.counts.items() if name not in VIEWS)

    def of(self, names: tuple[str, ...]) -> int:
        """How often these were dispatched."""
        return sum(self.counts[name] for name in names)


@contextmanager
def host_reads() -> Iterator[list[str]]:
    """Inside, every transfer of numbers to the host is listed: `tolist`, `item`, `float(...)`, `bool(...)`, `cpu`.

    Counted on the methods, because a CPU tensor's `tolist` dispatches nothing.
    """
    listed: list[str] = []
    names = ("tolist", "item", "__float__", "__int__", "__bool__", "__index__", "cpu")
    originals = {name: getattr(torch.Tensor, name) for name in names}

    def counted(name: str) -> Callable[..., Any]:
        def call(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            listed.append(name)
            return originals[name](tensor, *args, **kwargs)

        return call

    for name in names:
        setattr(torch.Tensor, name, counted(name))
    try:
        yield listed
    finally:
        for name, original in originals.items():
            setattr(torch.Tensor, name, original)


@dataclass(frozen=True)
class Step:
    """What one optimizer step of all lanes dispatches."""

    case: str
    lanes: int
    dispatched: int
    launches: int
    launches_a_layer: float
    """Launches that one more layer adds, from two depths."""
    casts: int
    reads_of_numbers: int
    host_reads: int
    update_launches: int
    """Launches of it after the backward pass: norms, clipping, AdamW, clearing."""


def write_model(folder: Path, num_layers: int) -> None:
    """A Llama of tiny width and this depth with random weights, and the shipped tokenizer."""
    from benchmarks import packing

    name = f"tiny{num_layers}"
    packing.SIZES[name] = {
        "hidden_size": 64,
        "num_hidden_layers": num_layers,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    packing.write_model(folder, name)


def filled(folder: Path, *, lanes: int, length: int, dtype: torch.dtype) -> Any:
    """A pack of so many trials on rows of `length` tokens, which has made its first steps."""
    from benchmarks import packing
    from finestep.train.model import Placement

    rivals = packing.Rivals(
        folder,
        packing.Shape(1, length, 40),
        "cpu",
        placement=Placement(torch.device("cpu"), dtype, dtype is torch.bfloat16, native_rows=dtype is torch.bfloat16),
    )
    recipes = [recipe.changed(micro_batch_size=1, learning_rate=RATE) for recipe in rivals.recipes[:lanes]]
    pack = packing.filled_pack(rivals.resident, recipes, emit=lambda *_, **__: None)
    for _ in range(3):
        pack._micro_step()
    return pack


def count(pack: Any) -> tuple[Operations, Operations, int]:
    """(a whole step, its forward and backward pass alone, transfers to the host in a whole step)."""
    with Operations() as whole, host_reads() as reads:
        pack._micro_step()
    with Operations() as passes:
        pack._forward_backward(pack.lanes)
    pack.members.rewind()
    return whole, passes, len(reads)


def measure(case: str, dtype: torch.dtype, *, lanes: int, num_layers: int, length: int) -> Step:
    """Counts of one step; the share of a layer from half the depth as well."""
    found = {}
    for depth in (num_layers // 2, num_layers):
        with tempfile.TemporaryDirectory() as name:
            write_model(Path(name), depth)
            found[depth] = count(filled(Path(name), lanes=lanes, length=length, dtype=dtype))
    whole, passes, reads = found[num_layers]
    fewer = found[num_layers // 2][1]
    return Step(
        case,
        lanes,
        sum(whole.counts.values()),
        whole.num_launches,
        round((passes.num_launches - fewer.num_launches) / (num_layers - num_layers // 2), 1),
        whole.of(CASTS),
        whole.of(READS_OF_NUMBERS),
        reads,
        whole.num_launches - passes.num_launches,
    )


def main() -> None:
    """Count both precisions and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    steps = []
    print("| step | trials | dispatched | launches | a layer | casts | nonzero, item | reads | after backward |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case, dtype in (("bf16, the path of CUDA", torch.bfloat16), ("fp32, the path of a CPU", torch.float32)):
        for lanes in options.lanes:
            one = measure(case, dtype, lanes=lanes, num_layers=options.layers, length=options.length)
            steps.append(one)
            print(f"| {' | '.join(str(value) for value in asdict(one).values())} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in steps], indent=1))


if __name__ == "__main__":
    main()
