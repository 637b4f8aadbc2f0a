"""Rows from lines of names and numbers, however they are joined: `loss: 2.1`, `loss=2.1`, `| loss 2.1 |`, `Iter 25: Train loss 2.1`.

It knows the grammar of such lines (mlx_lm, nanoGPT, litgpt, fairseq, Megatron, DeepSpeed-Chat, torchtune's bar, Keras, verl, mmengine,
Lightning's bar) and opens no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from finestep.readers.column_names import Role, looks_like_a_loss, role_of
from finestep.readers.limits import MAX_ROW_CHARS
from finestep.readers.row_table import RowTable
from finestep.readers.text_idioms import plain

_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf|NaN|Inf|NAN|INF)"
_PAIR = re.compile(
    r"([A-Za-z][\w./@-]{0,60}(?: {1,4}[A-Za-z][\w./@-]{0,20}){0,3})(?: ?\([^()]{0,12}\))?(\s{0,12}[:=|]\s{0,12}|\s{1,12})['\"]?"
    r"(?:(?:np|numpy|torch|jnp)\.\w{1,16}\(|tensor\()?("
    + _NUMBER
    + r")(?:\s{0,8}/\s{0,8}(\d{1,12}))?(?![\w.])(\s{0,3}%)?"
)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_MMENGINE = re.compile(r"Epoch\((\w+)\)\s*\[(\d+)\](?:\s*\[\s*(\d+)/(\d+)\])?")
_BRACKETS = re.compile(r"[Ee]poch ?:? ?\[(\d+) ?/ ?(\d+)\] ?[,:]? ?(?:[A-Za-z]+ ?:? ?)?[(\[] ?(\d+) ?/ ?(\d+) ?[)\]]")
_EPOCH_OF = re.compile(r"\b[Ee]poch ?:? ?[\[(] ?(\d+) ?/ ?(\d+) ?[\])]")
_TORCHTUNE_BAR = re.compile(r"^(\d+)\|(\d+)\|Loss: ?")
_FAIRSEQ = re.compile(r"epoch (\d+): {1,8}(\d+) / (\d+) ")
_BAR = re.compile(r"(?<![\d.])(\d{1,9})/(\d{1,9}) {0,2}[\[━]")
_VALIDATION = re.compile(
    r"\| ?valid ?\||\bvalid(?:ation)? on\b|^\W{0,3}(?:eval|valid|validation|test)\b(?![ _/.-]?(?:loss(?! at )|ppl|acc|perplexity))",
    re.IGNORECASE,
)
_WHOLE_EPOCH = re.compile(r"\| ?INFO ?\| ?train ?\|")
_SHARES = frozenset({"acc", "accuracy", "f1", "wer", "cer", "precision", "recall"})
"""Names whose values are given in per cent; any other per cent is progress."""
_SKIPPED = re.compile(r"number of (?:skipped|nan) iterations: *(\d+)")
_SKIPPED_SO_FAR = re.compile(r"\bstep=\d+, skipped=(\d+), lr=")
_NOT_OF_NOW = frozenset(
    {"best", "min", "max", "ema", "previous", "prev", "last", "target", "lowest", "final", "moving", "initial", "from"}
)
_BEFORE_COUNTERS = frozenset({"at", "of", "global", "train", "training", "current", "optimizer", "completed"})
_COUNTERS = ("epoch", "step")
_BY_SPACE = frozenset({"loss", "learning_rate", "grad_norm", "epoch", "step", "perplexity"})
"""Meanings that a name may have which is joined with its number by nothing but a space; other words are prose."""


def read_pairs(stream: Iterable[str], table: RowTable) -> None:
    """Rows from `name: value` pairs; a counter (epoch, step) or a repeated name begins the next row."""
    row: dict[str, object] = {}
    for raw in stream:
        if len(raw) > MAX_ROW_CHARS or table.is_full:
            continue
        line = _ESCAPES.sub("", raw[:20000]) if "\x1b" in raw else raw[:20000]
        for total in _SKIPPED_SO_FAR.findall(line):
            table.see_skipped(int(total[:6]))
        for skipped in _SKIPPED.findall(line):
            table.count_skipped(int(skipped[:6]))
        if _WHOLE_EPOCH.search(line):
            continue
        line = plain(line)
        for name, value, role in _counters_first(list(pairs_of(line))):
            if name in row or (role.slot in _COUNTERS and any(not _is_counter(key) for key in row)):
                _add_row(row, table)
                row = {key: old for key, old in row.items() if _is_counter(key) and _outlives(key, role)}
            row[name] = value
    _add_row(row, table)


def _counters_first(found: list[tuple[str, str, Role]]) -> list[tuple[str, str, Role]]:
    """A line is one row, wherever its counter stands, unless names repeat in it."""
    names = [name for name, _, _ in found]
    order = {"epoch": 0, "step": 1}
    return sorted(found, key=lambda each: order.get(each[2].slot, 2)) if len(set(names)) == len(names) else found


def _outlives(counter: str, role: Role) -> bool:
    """True for an epoch that goes on when a new step or a repeated value begins the next row."""
    own = role_of(counter)
    return own is not None and role.slot != "epoch" and own.slot != role.slot


def pairs_of(line: str) -> Iterator[tuple[str, str, Role]]:
    """(name, value, role) of what a line says; counters of well-known layouts come first.

    >>> [(name, value) for name, value, _ in pairs_of("Iter 25: Train loss 2.450, Learning Rate 7.000e-05, It/sec 0.999")]
    [('iter', '25'), ('train_loss', '2.450'), ('learning_rate', '7.000e-05')]
    """
    split, counters, line, has_step = _counted(line)
    yield from counters
    bar = None if has_step else _BAR.search(line)
    found = list(_named(line, split))
    if bar is not None and any(role.slot not in _COUNTERS for _, _, role in found) and not _has_step(found):
        yield "step", f"{bar.group(1)}/{bar.group(2)}", Role("train", "step")
    yield from found


def _counted(line: str) -> tuple[str, list[tuple[str, str, Role]], str, bool]:
    """(prefix of names, counters, rest of the line, whether a step is known) by the layouts that say them without a name."""
    mmengine = _MMENGINE.search(line)
    if mmengine:
        split = "eval/" if mmengine.group(1) != "train" else ""
        return split, [("epoch", mmengine.group(2), Role("train", "epoch"))], line[mmengine.end() :], False
    torchtune = _TORCHTUNE_BAR.match(line)
    if torchtune:
        step = ("step", torchtune.group(2), Role("train", "step"))
        return "", [step], f"loss: {line[torchtune.end() :]}", True
    match = _FAIRSEQ.search(line) or None
    if match:
        return "", [("epoch", match.group(1), Role("train", "epoch"))], line[match.end() :], True
    match = _BRACKETS.search(line)
    if match:
        step = ("step", f"{match.group(3)}/{match.group(4)}", Role("train", "step"))
        return "", [("epoch", match.group(1), Role("train", "epoch")), step], line[match.end() :], True
    split = "eval/" if _VALIDATION.search(line) else ""
    match = _EPOCH_OF.search(line)
    if match:
        return (
            split,
            [("epoch", f"{match.group(1)}/{match.group(2)}", Role("train", "epoch"))],
            line[match.end() :],
            False,
        )
    return split, [], line, False


def _named(line: str, split: str) -> Iterator[tuple[str, str, Role]]:
    for match in _PAIR.finditer(line):
        words = match.group(1).lower().split()
        if _NOT_OF_NOW & set(words[:-1]):
            continue
        if match.group(5) and not _SHARES & set(words):
            continue
        by_space = not match.group(2).strip()
        named = _name_of(words, split)
        if named is None:
            continue
        name, role = named
        if by_space and role.slot not in _BY_SPACE:
            continue
        total = match.group(4)
        yield name, f"{match.group(3)}/{total}" if total and role.slot in _COUNTERS else match.group(3), role


def _name_of(words: list[str], split: str) -> tuple[str, Role] | None:
    """The longest end of a name that means something; `split` is put before measured values on lines about validation."""
    words = words[:-1] if len(words) > 1 and words[-1] == "value" else words
    for start in range(len(words)):
        name = "_".join(words[start:])
        if name.split("_", 1)[0] in _NOT_OF_NOW:
            return None
        plain = role_of(name)
        is_counter = plain is not None and plain.split == "train" and plain.slot in _COUNTERS
        if start == 0 and len(words) > 1 and role_of(words[-1]) is not None and words[-2] == "at":
            continue
        if is_counter and start and words[start - 1] not in _BEFORE_COUNTERS:
            return None
        role = (
            plain if is_counter or not split or (plain is not None and plain.split == "eval") else role_of(split + name)
        )
        if role is not None and role.split in ("train", "eval"):
            return (name if role is plain else split + name), role
        if looks_like_a_loss(name) and not split and start == len(words) - 1:
            return name, Role("train", "loss", rank=900)
    return None


def _has_step(found: list[tuple[str, str, Role]]) -> bool:
    return any(role.slot == "step" for _, _, role in found)


def _add_row(row: dict[str, object], table: RowTable) -> None:
    if any(not _is_counter(key) for key in row):
        table.add(row)


def _is_counter(name: str) -> bool:
    role = role_of(name)
    return role is not None and role.slot in _COUNTERS
