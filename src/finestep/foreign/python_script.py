"""A Python training script as the values that it gives to its trainer; it is parsed, never run.

Read are the keywords of calls like `TrainingArguments(...)` and `LoraConfig(...)`, and with less weight the defaults of `argparse`, of
dataclasses and of a `train` function, and the names that the module sets.
"""

from __future__ import annotations

import ast
import json
import re

from finestep.errors import BadInput
from finestep.foreign.arithmetic import combine
from finestep.foreign.config import Source

_READ_CALLS = re.compile(
    r"(Arguments|Config|TrainingArgs|Params)$|^(from_pretrained|get_peft_model|Accelerator|DataLoader|SGD|Adafactor|Lion|Muon|Trainer"
    r"|get_\w*scheduler?\w*|get_\w*_schedule\w*|prepare_model_for_kbit_training|load_dataset|train_test_split|init_process_group)$|Adam|Trainer$"
)
_MODEL_CALL = re.compile(
    r"^(Auto(Model|Peft)\w*|Fast(Language)?Model|\w*For(CausalLM|SequenceClassification)|SentenceTransformer)"
)
_ENTRY = re.compile(r"train|main|finetune|fine_tune|run|fit")
_UNKNOWN = object()


def python_source(text: str, place: str) -> Source:
    """The values of a script.

    Raises:
        BadInput: it is not valid Python.
    """
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadInput("the file is not valid Python", value=str(error)[:100], place=place) from None
    reader = _Reader()
    reader.visit(module)
    tree = {"calls": reader.calls, "defaults": reader.defaults, "names": reader.set_names}
    return Source(
        kind="python",
        tree={key: value for key, value in tree.items() if value},
        text=text,
        calls=frozenset(reader.called),
        unresolved=tuple(dict.fromkeys(reader.open)),
    )


def notebook_text(text: str, place: str) -> tuple[str, str]:
    """(the Python of a notebook's code cells, the shell commands in them)."""
    try:
        cells = json.loads(text)["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell.get("cell_type") == "code"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadInput("the file is not a notebook", place=place) from None
    lines = "\n".join(code).split("\n")
    python = [line for line in lines if not line.lstrip().startswith(("!", "%"))]
    return "\n".join(python), "\n".join(line.lstrip()[1:] for line in lines if line.lstrip().startswith("!"))


class _Reader(ast.NodeVisitor):
    """Walks a module once, in order, so that a name has the value that it was last given."""

    def __init__(self) -> None:
        self.calls: dict[str, dict[str, object]] = {}
        self.defaults: dict[str, object] = {}
        self.set_names: dict[str, object] = {}
        self.called: set[str] = set()
        self.open: list[str] = []

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            self._assign(target, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        if node.value is not None:
            self._assign(node.target, node.value)

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        found = self.value(value)
        if isinstance(target, ast.Name) and found is not _UNKNOWN:
            self.set_names[target.id] = found
        elif isinstance(target, ast.Attribute) and found is not _UNKNOWN and not isinstance(found, dict):
            self.set_names[target.attr] = found

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """A dataclass of options: the defaults of its fields."""
        for line in node.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value is not None:
                found = self.value(_field_default(line.value))
                if found is not _UNKNOWN:
                    self.defaults[line.target.id] = found
        for line in node.body:
            if isinstance(line, ast.FunctionDef | ast.AsyncFunctionDef):
                self.visit(line)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if _ENTRY.search(node.name):
            names = [*node.args.posonlyargs, *node.args.args]
            pairs = [*zip(reversed(names), reversed(node.args.defaults), strict=False)]
            pairs += [(n, d) for n, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None]
            for name, default in pairs:
                found = self.value(default)
                if found is not _UNKNOWN:
                    self.defaults[name.arg] = found
        for line in node.body:
            self.visit(line)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        name, owner = _callee(node.func)
        self.called.add(name)
        if owner:
            self.called.add(owner)
        if name == "add_argument":
            self._argument(node)
        elif name == "set_defaults" or _READ_CALLS.search(name):
            self._call(node, owner if name == "from_pretrained" else name, owner)

    def _argument(self, node: ast.Call) -> None:
        """`parser.add_argument("--name", default=...)`."""
        words = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        keywords = {word.arg: word.value for word in node.keywords if word.arg}
        long = next((word for word in words if word.startswith("--")), words[0] if words else "")
        value = self.value(keywords["default"]) if "default" in keywords else _UNKNOWN
        if long and value is not _UNKNOWN:
            self.defaults[long.lstrip("-").replace("-", "_")] = value

    def _call(self, node: ast.Call, name: str, owner: str) -> None:
        if name and ("Tokenizer" in name or "Processor" in name or "GenerationConfig" in name):
            return
        section = self.calls.setdefault(name or "call", {})
        for word in node.keywords:
            found = self.value(word.value)
            if word.arg is None:
                section.update(found if isinstance(found, dict) else {})
            elif found is not _UNKNOWN:
                section.setdefault(word.arg, found)
            elif not isinstance(word.value, ast.Name | ast.Attribute | ast.Call | ast.Lambda):
                self.open.append(f"{name}({word.arg}={ast.unparse(word.value)[:60]})")
        if owner and _MODEL_CALL.match(owner) and node.args:
            model = self.value(node.args[0])
            if isinstance(model, str):
                section.setdefault("model_name_or_path", model)

    def value(self, node: ast.expr) -> object:
        """What an expression is worth, as far as the file alone tells."""
        match node:
            case ast.Constant():
                return node.value
            case ast.Name() | ast.Attribute():
                name = node.id if isinstance(node, ast.Name) else node.attr
                known = self.set_names.get(name, self.defaults.get(name, _UNKNOWN))
                return _dtype(name) if known is _UNKNOWN and isinstance(node, ast.Attribute) else known
            case ast.List() | ast.Tuple() | ast.Set():
                values = [self.value(one) for one in node.elts]
                return _UNKNOWN if any(one is _UNKNOWN for one in values) else values
            case ast.Dict():
                return self._dict(node)
            case ast.UnaryOp(op=ast.USub()):
                inner = self.value(node.operand)
                return -inner if isinstance(inner, int | float) else _UNKNOWN
            case ast.BinOp():
                return self._binary(node)
            case ast.BoolOp(op=ast.Or()):
                return self.value(node.values[-1])
            case ast.IfExp():
                return self.value(node.orelse)
            case ast.JoinedStr():
                return self._joined(node)
            case ast.Call():
                return self._made(node)
        return _UNKNOWN

    def _dict(self, node: ast.Dict) -> object:
        out: dict[str, object] = {}
        for key, value in zip(node.keys, node.values, strict=True):
            found = self.value(value)
            if key is None:
                out |= found if isinstance(found, dict) else {}
            elif isinstance(key, ast.Constant) and isinstance(key.value, str) and found is not _UNKNOWN:
                out[key.value] = found
        return out

    def _binary(self, node: ast.BinOp) -> object:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(left, int | float) and isinstance(right, int | float):
            value = combine(node.op, left, right)
            return _UNKNOWN if value is None else value
        return (
            left + right
            if isinstance(left, str) and isinstance(right, str) and isinstance(node.op, ast.Add)
            else _UNKNOWN
        )

    def _joined(self, node: ast.JoinedStr) -> object:
        parts = [self.value(one.value if isinstance(one, ast.FormattedValue) else one) for one in node.values]
        return _UNKNOWN if any(one is _UNKNOWN for one in parts) else "".join(str(one) for one in parts)

    def _made(self, node: ast.Call) -> object:
        """`os.environ.get(name, default)`, `int(x)`, `dict(a=1)`; other calls are not worth a value."""
        name, _ = _callee(node.func)
        if name in ("get", "getenv") and len(node.args) == 2:
            return self.value(node.args[1])
        if name in ("int", "float", "str") and len(node.args) == 1:
            inner = self.value(node.args[0])
            try:
                return _UNKNOWN if inner is _UNKNOWN else {"int": int, "float": float, "str": str}[name](inner)
            except (TypeError, ValueError):
                return _UNKNOWN
        if name == "dict" and not node.args:
            found = {word.arg: self.value(word.value) for word in node.keywords if word.arg}
            return {key: value for key, value in found.items() if value is not _UNKNOWN}
        return _UNKNOWN


def _dtype(name: str) -> object:
    """`torch.bfloat16` and its kin are their own names."""
    return name if name in ("bfloat16", "float16", "float32", "half") else _UNKNOWN


def _callee(node: ast.expr) -> tuple[str, str]:
    """(the last name of what is called, the name before it)."""
    if isinstance(node, ast.Attribute):
        owner = node.value
        before = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
        return node.attr, before
    return (node.id, "") if isinstance(node, ast.Name) else ("", "")


def _field_default(node: ast.expr) -> ast.expr:
    """The default in `field(default=...)`."""
    if isinstance(node, ast.Call) and _callee(node.func)[0] in ("field", "Field", "Option", "Argument"):
        found = next((word.value for word in node.keywords if word.arg == "default"), None)
        return found or (node.args[0] if node.args else node)
    return node
