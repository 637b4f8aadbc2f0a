"""The table of data layouts: what people bring, and what must become of it. Used by several tests; no row is real data."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NUM_ROWS = 24
Row = dict[str, Any]
MakeRow = Callable[[int], Row]


def ask(n: int) -> str:
    return f"ask{n} what is it"


def answer(n: int) -> str:
    return f"answer{n} it is"


def about(n: int) -> str:
    return f"about{n} here it stands"


@dataclass(frozen=True)
class Read:
    """A layout that is read. Texts are of row 0 and hold `0`; all must stand in the row that is trained.

    Attributes:
        trained: texts that carry loss.
        context: texts that the model reads without loss.
        label: of row 0, for a classifier; `context` then holds its texts.
        notes: pieces of notes that must be said.
        options: what the user says (`DataSpec` fields).
    """

    write: Callable[[Path], Path]
    format: str
    trained: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    label: str | None = None
    notes: tuple[str, ...] = ()
    options: Mapping[str, Any] = ()  # type: ignore[assignment]


@dataclass(frozen=True)
class Refused:
    """A layout that is refused: pieces of the message."""

    write: Callable[[Path], Path]
    says: tuple[str, ...]
    options: Mapping[str, Any] = ()  # type: ignore[assignment]


def jsonl(make: MakeRow, *, rows: int = NUM_ROWS, name: str = "rows.jsonl") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        text = "".join(json.dumps(make(n)) + "\n" for n in range(rows))
        data = text.encode()
        path = folder / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


def table(
    make: MakeRow, *, delimiter: str = ",", encoding: str = "utf-8", name: str = "rows.csv", before: str = ""
) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        out = io.StringIO()
        first = make(0)
        writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n")
        writer.writerow(list(first))
        writer.writerows(list(make(n).values()) for n in range(NUM_ROWS))
        path = folder / name
        path.write_bytes((before + out.getvalue()).encode(encoding))
        return path

    return write


def parquet(make: MakeRow, *, name: str = "rows.parquet") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        import pyarrow
        from pyarrow import parquet as files

        files.write_table(pyarrow.Table.from_pylist([make(n) for n in range(NUM_ROWS)]), folder / name)
        return folder / name

    return write


def text(content: str, *, name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_text(content, encoding="utf-8")
        return folder / name

    return write


def folder_of(**files: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """A folder with files; `__` in a name is a slash and `_dot_` a dot."""

    def write(folder: Path) -> Path:
        place = folder / "set"
        for name, make in files.items():
            target = place / name.replace("__", "/").replace("_dot_", ".").replace("_dash_", "-")
            target.parent.mkdir(parents=True, exist_ok=True)
            made = make(folder)
            made.rename(target)
        return place

    return write


def chat(
    n: int, *, user: str = "user", assistant: str = "assistant", role: str = "role", content: str = "content"
) -> list[Row]:
    return [{role: user, content: ask(n)}, {role: assistant, content: answer(n)}]


def label(n: int) -> str:
    return ("good", "bad")[n % 2]


def pairs(n: int, prompt: str = "prompt", completion: str = "completion", **more: Any) -> Row:
    return {prompt: ask(n), completion: answer(n), **more}


def thirds(n: int, **names: str) -> Row:
    """Texts for `ask`, `about` and `answer` under the names given."""
    texts = {"ask": ask(n), "about": about(n), "answer": answer(n)}
    return {column: texts[which] for which, column in names.items()}


CALL = {"id": "c", "type": "function", "function": {"name": "find", "arguments": '{"place": "about0"}'}}
TOOLS = [
    {"type": "function", "function": {"name": "find", "description": "about0 finds", "parameters": {"type": "object"}}}
]
BOTH, ALL = {"trained": (answer(0),), "context": (ask(0),)}, {"trained": (answer(0),), "context": (ask(0), about(0))}
PC = "prompt_completion"

LAYOUTS: dict[str, Read | Refused] = {
    # prompts and answers
    "prompt, completion": Read(jsonl(pairs), PC, **BOTH),
    "question, answer": Read(jsonl(lambda n: pairs(n, "question", "answer")), PC, **BOTH),
    "query, response": Read(jsonl(lambda n: pairs(n, "query", "response")), PC, **BOTH),
    "input, output": Read(jsonl(lambda n: pairs(n, "input", "output")), PC, **BOTH),
    "inputs, targets": Read(jsonl(lambda n: pairs(n, "inputs", "targets")), PC, **BOTH),
    "problem, solution": Read(jsonl(lambda n: pairs(n, "problem", "solution")), PC, **BOTH),
    "user, assistant": Read(jsonl(lambda n: pairs(n, "user", "assistant")), PC, **BOTH),
    "Question, Answer": Read(jsonl(lambda n: pairs(n, "Question", "Answer")), PC, **BOTH),
    "instruction, output": Read(jsonl(lambda n: pairs(n, "instruction", "output")), "alpaca", **BOTH),
    "instruction, response": Read(jsonl(lambda n: pairs(n, "instruction", "response")), PC, **BOTH),
    "alpaca": Read(jsonl(lambda n: thirds(n, ask="instruction", about="input", answer="output")), "alpaca", **ALL),
    "Alpaca": Read(jsonl(lambda n: thirds(n, ask="Instruction", about="Input", answer="Output")), PC, **ALL),
    "instruction, input, response": Read(
        jsonl(lambda n: thirds(n, ask="instruction", about="input", answer="response")), PC, **ALL
    ),
    "instruction, context, response, category": Read(
        jsonl(lambda n: {**thirds(n, ask="instruction", about="context", answer="response"), "category": "open question"}),
        PC,
        **ALL,
        notes=("not used: `category`",),
    ),
    "question, passage, answer": Read(jsonl(lambda n: thirds(n, about="passage", ask="question", answer="answer")), PC, **ALL),
    "answer is true or false": Read(
        jsonl(lambda n: {"question": ask(n), "passage": about(n), "answer": n % 2 == 0}), PC, ("True",), (ask(0), about(0))
    ),
    "squad": Read(
        jsonl(lambda n: {"context": about(n), "question": ask(n), "answers": {"text": [answer(n), "x"], "answer_start": [1, 2]}}),
        PC,
        **ALL,
    ),
    "contexts as a list": Read(
        jsonl(lambda n: {"contexts": ["one more", about(n)], "question": ask(n), "answer": answer(n)}), PC, **ALL
    ),
    "documents, query, response": Read(
        jsonl(lambda n: {"documents": [about(n)], "query": ask(n), "response": answer(n)}), PC, **ALL
    ),
    "article, question, answer": Read(jsonl(lambda n: thirds(n, about="article", ask="question", answer="answer")), PC, **ALL),
    "text is the passage": Read(jsonl(lambda n: thirds(n, about="text", ask="question", answer="answer")), PC, **ALL),
    "text repeats it all": Read(
        jsonl(lambda n: {**pairs(n, "instruction", "output"), "text": f"### {ask(n)} ### {answer(n)}"}),
        "alpaca",
        **BOTH,
        notes=("not used: `text`",),
    ),
    "schema, question, sql": Read(jsonl(lambda n: thirds(n, about="sql_context", ask="sql_prompt", answer="sql")), PC, **ALL),
    "system_prompt, question, response": Read(
        jsonl(lambda n: thirds(n, about="system_prompt", ask="question", answer="response")), PC, **ALL
    ),
    "prompt, response, system": Read(jsonl(lambda n: thirds(n, about="system", ask="prompt", answer="response")), PC, **ALL),
    "question, reasoning, answer": Read(
        jsonl(lambda n: thirds(n, ask="question", about="reasoning", answer="answer")), PC, (about(0), answer(0)), (ask(0),)
    ),
    "Question, Complex_CoT, Response": Read(
        jsonl(lambda n: thirds(n, ask="Question", about="Complex_CoT", answer="Response")), PC, (about(0), answer(0)), (ask(0),)
    ),
    "history of pairs": Read(
        jsonl(lambda n: {**pairs(n, "instruction", "output"), "history": [["before", about(n)]]}),
        "alpaca",
        (answer(0), about(0)),
        (ask(0), "before"),
    ),
    "history of messages": Read(
        jsonl(lambda n: {**pairs(n, "question", "answer"), "chat_history": [{"role": "user", "content": about(n)}]}), PC, **ALL
    ),
    "choices, number of the right one": Read(
        jsonl(lambda n: {"question": ask(n), "choices": ["red", about(n)], "answer": 1}), PC, ("B",), (ask(0), "A. red", about(0))
    ),
    "choices with labels": Read(
        jsonl(lambda n: {"question": ask(n), "choices": {"text": ["red", about(n)], "label": ["1", "2"]}, "answerKey": "2"}),
        PC,
        ("2",),
        ("1. red", f"2. {about(0)}"),
    ),
    "a column a choice": Read(
        table(lambda n: {"question": ask(n), "A": "red", "B": about(n), "C": "blue", "D": "green", "answer": "B"}),
        PC,
        ("B",),
        (ask(0), f"B. {about(0)}", "D. green"),
    ),
    "numbered choices, counted from one": Read(
        jsonl(lambda n: {"question": ask(n), "option1": "red", "option2": about(n), "answer": str(1 + (n + 1) % 2)}),
        PC,
        ("2",),
        (ask(0), f"2. {about(0)}"),
    ),
    "numbered choices, counted from zero": Read(
        jsonl(lambda n: {"goal": ask(n), "sol1": "red", "sol2": about(n), "label": (n + 1) % 2}), PC, ("2",), (ask(0), f"2. {about(0)}")
    ),
    "a choice's number that counts from one": Read(
        jsonl(lambda n: {"question": ask(n), "opa": "red", "opb": about(n), "cop": 1 + (n + 1) % 2}), PC, ("B",), (f"B. {about(0)}",)
    ),
    "several answers": Read(
        jsonl(lambda n: {"question": ask(n), "answer": [answer(n), "another"]}), PC, **BOTH, notes=("several answers",)
    ),
    "a prompt that frames the instruction": Read(
        jsonl(lambda n: {**pairs(n, "instruction", "output"), "prompt": f"Below is {ask(n)}"}), "alpaca", **BOTH, notes=("`prompt`",)
    ),
    "contents of parts": Read(
        jsonl(lambda n: {"contents": [{"role": m["role"], "parts": [{"text": m["content"]}]} for m in chat(n, assistant="model")]}),
        "messages",
        **BOTH,
    ),
    "endings and a label": Read(
        jsonl(lambda n: {"ctx": about(n), "endings": ["red", ask(n)], "label": 1}), PC, ("B",), (about(0), f"B. {ask(0)}")
    ),
    "document, summary": Read(jsonl(lambda n: pairs(n, "document", "summary")), PC, **BOTH),
    "article, highlights, id": Read(jsonl(lambda n: {**pairs(n, "article", "highlights"), "id": f"x{n}"}), PC, **BOTH, notes=("`id`",)),
    "text, summary, title": Read(
        jsonl(lambda n: {**pairs(n, "text", "summary"), "title": about(n)}), PC, **BOTH, notes=("not used: `title`", "--prompt")
    ),
    "text, output": Read(jsonl(lambda n: pairs(n, "text", "output")), PC, **BOTH),
    "text, free target": Read(
        jsonl(lambda n: {"text": ask(n), "target": f"{answer(n)} written in words of its own"}), PC, **BOTH
    ),
    "dialogue, summary": Read(jsonl(lambda n: pairs(n, "dialogue", "summary")), PC, **BOTH),
    "Context, Response": Read(jsonl(lambda n: pairs(n, "Context", "Response")), PC, **BOTH),
    "text, category, summary": Read(jsonl(lambda n: {**pairs(n, "text", "summary"), "category": label(n)}), PC, **BOTH),
    "prompt, completion and a column of no known name": Read(
        jsonl(lambda n: pairs(n, blob=about(n))), PC, **BOTH, notes=("not used: `blob`", "--prompt '{blob}")
    ),
    "prompt as messages": Read(
        jsonl(lambda n: {"prompt": chat(n)[:1], "completion": chat(n)[1:]}), PC, **BOTH
    ),
    "prompt as messages, completion as text": Read(
        jsonl(lambda n: {"prompt": chat(n)[:1], "completion": answer(n)}), PC, **BOTH
    ),
    "translation by a format string": Read(
        jsonl(lambda n: {"translation": {"en": ask(n), "de": answer(n)}}),
        PC,
        **BOTH,
        options={"prompt": "{translation[en]}", "completion": "{translation[de]}"},
    ),
    "a prompt by a format string": Read(
        jsonl(lambda n: thirds(n, about="x", ask="y", answer="z")),
        PC,
        (answer(0),),
        (f"Read: {about(0)}\nQ: {ask(0)}",),
        options={"prompt": r"Read: {x}\nQ: {y}", "completion": "{z}"},
    ),
    "a system text for all": Read(jsonl(pairs), PC, (answer(0),), ("Be brief.",), options={"system": "Be brief."}),
    "columns by name": Read(
        jsonl(lambda n: thirds(n, about="p", ask="q", answer="r")),
        PC,
        **BOTH,
        options={"columns": {"prompt": "q", "completion": "r"}},
        notes=("not used: `p`",),
    ),
    "context by name": Read(
        jsonl(lambda n: thirds(n, about="p", ask="q", answer="r")),
        PC,
        **ALL,
        options={"columns": {"context": "p", "prompt": "q", "completion": "r"}},
    ),
    # conversations
    "messages": Read(jsonl(lambda n: {"messages": chat(n)}), "messages", **BOTH),
    "conversations": Read(
        jsonl(lambda n: {"conversations": chat(n, user="human", assistant="gpt", role="from", content="value")}), "sharegpt", **BOTH
    ),
    "a conversation column of another name": Read(jsonl(lambda n: {"talk_log": chat(n)}), "messages", **BOTH),
    "messages and a system column": Read(jsonl(lambda n: {"system": about(n), "messages": chat(n)}), "messages", **ALL),
    "messages as JSON in a table": Read(table(lambda n: {"messages": json.dumps(chat(n))}), "messages", **BOTH),
    "parts of text": Read(
        jsonl(lambda n: {"messages": [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in chat(n)]}),
        "messages",
        **BOTH,
    ),
    "a part without text": Read(
        jsonl(
            lambda n: {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": None}, {"type": "text", "text": ask(n)}]},
                    chat(n)[1],
                ]
            }
        ),
        "messages",
        **BOTH,
    ),
    "pairs of user and assistant": Read(
        jsonl(lambda n: {"conversation": [{"user": ask(n), "assistant": answer(n)}]}), "sharegpt", **BOTH
    ),
    "pairs with input": Read(jsonl(lambda n: {"conversation": [{"input": ask(n), "output": answer(n)}]}), "sharegpt", **BOTH),
    "texts in turn": Read(jsonl(lambda n: {"dialog": [ask(n), answer(n)]}), "sharegpt", **BOTH),
    "texts in turn under data": Read(jsonl(lambda n: {"id": f"{n}", "data": [ask(n), answer(n)]}), "sharegpt", **BOTH),
    "an odd assistant": Read(
        jsonl(lambda n: {"conversations": chat(n, user="human", assistant="bing", role="from", content="value")}),
        "sharegpt",
        **BOTH,
        notes=("24 messages from `bing` are read as the assistant's",),
    ),
    "one unknown speaker": Read(
        jsonl(lambda n: {"messages": [*chat(n), *([{"role": "narrator", "content": "x"}] if n == 3 else [])]}),
        "messages",
        **BOTH,
        notes=("1 row was left out: a message from `narrator`",),
    ),
    "reasoning_content": Read(
        jsonl(lambda n: {"messages": [chat(n)[0], {**chat(n)[1], "reasoning_content": about(n)}]}),
        "messages",
        (about(0), answer(0)),
        (ask(0),),
    ),
    "thinking parts": Read(
        jsonl(
            lambda n: {
                "messages": [
                    chat(n)[0],
                    {"role": "assistant", "content": [{"type": "thinking", "thinking": about(n)}, {"type": "text", "text": answer(n)}]},
                ]
            }
        ),
        "messages",
        (about(0), answer(0)),
        (ask(0),),
    ),
    "a reasoning turn": Read(
        jsonl(lambda n: {"messages": [chat(n)[0], {"role": "reasoning", "content": about(n)}, chat(n)[1]]}),
        "messages",
        (about(0), answer(0)),
        (ask(0),),
    ),
    "tools and tool_calls": Read(
        jsonl(
            lambda n: {
                "messages": [
                    chat(n)[0],
                    {"role": "assistant", "content": None, "tool_calls": [CALL]},
                    {"role": "tool", "tool_call_id": "c", "content": "found it"},
                    chat(n)[1],
                ],
                "tools": TOOLS,
            }
        ),
        "messages",
        (answer(0), '"about0"'),
        (ask(0), "about0 finds", "found it"),
    ),
    "content beside tool_calls": Read(
        jsonl(lambda n: {"messages": [chat(n)[0], {**chat(n)[1], "tool_calls": [CALL]}]}), "messages", (answer(0), "find"), (ask(0),)
    ),
    "tools as JSON text": Read(
        jsonl(lambda n: {"messages": chat(n), "tools": json.dumps(TOOLS)}), "messages", (answer(0),), ("about0 finds",)
    ),
    "function_call of old": Read(
        jsonl(lambda n: {"messages": [chat(n)[0], {"role": "assistant", "content": None, "function_call": CALL["function"]}]}),
        "messages",
        ('"about0"',),
        (ask(0),),
    ),
    "tool use as parts": Read(
        jsonl(
            lambda n: {
                "messages": [
                    chat(n)[0],
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "find", "input": {"at": "about0"}}]},
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "found it"}]},
                    chat(n)[1],
                ]
            }
        ),
        "messages",
        (answer(0), "about0"),
        ("found it",),
    ),
    "a text in messages that no turn holds": Read(
        jsonl(lambda n: {"messages": [chat(n)[0], {**chat(n)[1], "critique": about(n)}]}),
        "messages",
        **BOTH,
        notes=("not used: `messages.critique`",),
    ),
    "weight 0 is not trained": Read(
        jsonl(lambda n: {"messages": [*[{**m, "weight": 0} for m in chat(n)], {"role": "user", "content": "more"}, chat(n + 100)[1]]}),
        "messages",
        (answer(100),),
        (answer(0),),
    ),
    "turns after the last answer": Read(
        jsonl(lambda n: {"messages": [*chat(n), {"role": "user", "content": "thanks"}]}),
        "messages",
        **BOTH,
        notes=("not used: `messages.turns after the last answer`",),
    ),
    # answers
    "a whole solution beside its last line": Read(
        jsonl(lambda n: {"problem": ask(n), "generated_solution": answer(n), "expected_answer": f"{n}"}),
        PC,
        **BOTH,
        notes=("not used: `expected_answer`",),
    ),
    "columns in Chinese": Read(jsonl(lambda n: {"\u95ee\u9898": ask(n), "\u7b54\u6848": answer(n)}), PC, **BOTH),
    "choices by number": Read(
        jsonl(
            lambda n: {"context": about(n), "question": ask(n), "answer0": answer(n), "answer1": "no", "answer2": "never", "label": n % 3}
        ),
        PC,
        ("0",),
        (about(0), ask(0), f"0. {answer(0)}", "2. never"),
    ),
    "where a row comes from is no context": Read(
        jsonl(lambda n: {"question": ask(n), "answer": answer(n), "source": "web"}), PC, **BOTH, notes=("not used: `source`",)
    ),
    "wrong answers are not offered": Read(
        jsonl(lambda n: {"question": ask(n), "correct_answer": answer(n), "distractor1": about(n)}),
        PC,
        **BOTH,
        notes=("not used: `distractor1`",),
    ),
    "another answer is offered": Read(
        jsonl(lambda n: {"question": ask(n), "answer": answer(n), "llama_response": about(n)}),
        PC,
        **BOTH,
        notes=("--completion '{llama_response}'",),
    ),
    "one answer for all": Read(
        jsonl(lambda n: {"question": ask(n), "answer": "answer0"}), PC, ("answer0",), (ask(0),), notes=("is the same in all",)
    ),
    # plain text
    "text": Read(jsonl(lambda n: {"text": answer(n)}), "text", (answer(0),)),
    "text with meta": Read(
        jsonl(lambda n: {"text": answer(n), "url": f"http://x/{n}"}), "text", (answer(0),), notes=("not used: `url`",)
    ),
    "one column of another name": Read(jsonl(lambda n: {"lyrics": answer(n)}), "text", (answer(0),), notes=("`lyrics` is read as text",)),
    "a text file": Read(text("".join(f"{answer(n)}\n" for n in range(NUM_ROWS)), name="t.txt"), "text", (answer(0),)),
    # labels
    "text, label": Read(jsonl(lambda n: {"text": ask(n), "label": label(n)}), "labels", (), (ask(0),), "good"),
    "sentence, label as number": Read(jsonl(lambda n: {"sentence": ask(n), "label": n % 3}), "labels", (), (ask(0),), "0"),
    "tweet, sentiment": Read(jsonl(lambda n: {"tweet": ask(n), "sentiment": label(n)}), "labels", (), (ask(0),), "good"),
    "text, target of a few classes": Read(jsonl(lambda n: {"text": ask(n), "target": label(n)}), "labels", (), (ask(0),), "good"),
    "true and false": Read(jsonl(lambda n: {"text": ask(n), "is_spam": n % 2 == 0}), "labels", (), (ask(0),), "True"),
    "labels of one element": Read(jsonl(lambda n: {"text": ask(n), "labels": [label(n)]}), "labels", (), (ask(0),), "good"),
    "whole numbers as floats": Read(jsonl(lambda n: {"text": ask(n), "label": float(n % 2)}), "labels", (), (ask(0),), "0"),
    "one label missing": Read(
        jsonl(lambda n: {"text": ask(n), "label": None if n == 5 else label(n)}),
        "labels",
        (),
        (ask(0),),
        "good",
        notes=("1 row was left out: no label",),
    ),
    "labels by case and spaces": Read(
        jsonl(lambda n: {"text": ask(n), "label": "Good " if n == 4 else label(n)}),
        "labels",
        (),
        (ask(0),),
        "good",
        notes=("one class", "`Good `"),
    ),
    "premise, hypothesis": Read(
        jsonl(lambda n: {"premise": ask(n), "hypothesis": about(n), "label": n % 3}), "labels", (), (ask(0), about(0)), "0"
    ),
    "sentence1, sentence2": Read(
        jsonl(lambda n: {"sentence1": ask(n), "sentence2": about(n), "label": n % 2, "idx": n}), "labels", (), (ask(0), about(0)), "0"
    ),
    "text_a, text_b": Read(
        jsonl(lambda n: {"text_a": ask(n), "text_b": about(n), "label": label(n)}), "labels", (), (ask(0), about(0)), "good"
    ),
    "question, sentence": Read(
        jsonl(lambda n: {"question": ask(n), "sentence": about(n), "label": n % 2}), "labels", (), (ask(0), about(0)), "0"
    ),
    "query, passage, relevance": Read(
        jsonl(lambda n: {"query": ask(n), "passage": about(n), "relevance": n % 2}), "labels", (), (ask(0), about(0)), "0"
    ),
    "question, answer, judged": Read(
        jsonl(lambda n: {"question": ask(n), "answer": about(n), "label": n % 2}), "labels", (), (ask(0), about(0)), "0"
    ),
    "title, text, category": Read(
        jsonl(lambda n: {"title": ask(n), "text": about(n), "category": label(n)}), "labels", (), (ask(0), about(0)), "good"
    ),
    "text, comment, label": Read(
        jsonl(lambda n: {"text": ask(n), "remark": about(n), "label": label(n)}),
        "labels",
        (),
        (ask(0),),
        "good",
        notes=("not used: `remark`", "--prompt '{text}\\n{remark}'"),
    ),
    "a classifier's text by a format string": Read(
        jsonl(lambda n: {"text": ask(n), "remark": about(n), "label": label(n)}),
        "labels",
        (),
        (f"{ask(0)} / {about(0)}",),
        "good",
        options={"prompt": "{text} / {remark}"},
    ),
    "any name beside a label": Read(
        jsonl(lambda n: {"Category": label(n), "Resume": ask(n)}), "labels", (), (ask(0),), "good", notes=("`Resume` is read as text",)
    ),
    "the word of an annotator beside a label": Read(
        jsonl(lambda n: {"text": ask(n), "label": label(n), "answer": "accept"}), "labels", (), (ask(0),), "good", notes=("`answer`",)
    ),
    # files
    "gzip": Read(jsonl(pairs, name="rows.jsonl.gz"), PC, **BOTH),
    "ndjson": Read(jsonl(pairs, name="rows.ndjson"), PC, **BOTH),
    "a line an object, named .json": Read(jsonl(pairs, name="rows.json"), PC, **BOTH),
    "a JSON list": Read(text(json.dumps([pairs(n) for n in range(NUM_ROWS)]), name="r.json"), PC, **BOTH),
    "a JSON list under data": Read(
        text(json.dumps({"version": 1, "data": [pairs(n) for n in range(NUM_ROWS)]}), name="r.json"), PC, **BOTH
    ),
    "JSON by columns": Read(
        text(json.dumps({"prompt": [ask(n) for n in range(NUM_ROWS)], "completion": [answer(n) for n in range(NUM_ROWS)]}), name="r.json"),
        PC,
        **BOTH,
    ),
    "csv": Read(table(pairs), PC, **BOTH),
    "tsv": Read(table(pairs, delimiter="\t", name="rows.tsv"), PC, **BOTH),
    "semicolons": Read(table(pairs, delimiter=";"), PC, **BOTH, notes=("separated by semicolons",)),
    "tabs in a csv": Read(table(pairs, delimiter="\t"), PC, **BOTH, notes=("separated by tabs",)),
    "sep= of a spreadsheet": Read(table(pairs, delimiter=";", before="sep=;\r\n"), PC, **BOTH),
    "utf-16 of a spreadsheet": Read(table(pairs, delimiter="\t", encoding="utf-16"), PC, **BOTH, notes=("utf-16",)),
    "utf-8 with a mark": Read(table(pairs, encoding="utf-8-sig"), PC, **BOTH),
    "cp1252": Read(
        table(lambda n: pairs(n, note="d\u00e9j\u00e0"), encoding="cp1252"), PC, **BOTH, notes=("cp1252", "iconv", "`note`")
    ),
    "a column twice": Read(
        text("text,label,label\n" + "".join(f"{ask(n)},{label(n)},{n}\n" for n in range(NUM_ROWS)), name="twice.csv"),
        "labels",
        (),
        (ask(0),),
        "good",
        notes=("`label_2`",),
    ),
    "parquet": Read(parquet(pairs), PC, **BOTH),
    "a lone surrogate": Read(
        jsonl(lambda n: {"prompt": ask(n), "completion": answer(n) + " \ud83d"}), PC, **BOTH, notes=("half",)
    ),
    "train and test told apart": Read(
        folder_of(train_dot_jsonl=jsonl(pairs), test_dot_jsonl=jsonl(lambda n: pairs(n + 500)), README_dot_md=text("# Hello", name="a.md")),
        PC,
        **BOTH,
        notes=("`test.jsonl` is not used", "README.md"),
    ),
    "shards and a validation split": Read(
        folder_of(
            **{
                "data__train_dash_00000_dash_of_dash_00001_dot_parquet": parquet(pairs),
                "data__validation_dash_00000_dot_parquet": parquet(lambda n: pairs(n + 500), name="v.parquet"),
            }
        ),
        PC,
        **BOTH,
        notes=("is for validation",),
    ),
    "two training files": Read(
        folder_of(train_dot_jsonl=jsonl(pairs), **{"train_more_dot_jsonl": jsonl(lambda n: pairs(n + 500))}),
        PC,
        **BOTH,
        notes=("the rows of 2 files are trained on: train.jsonl, train_more.jsonl",),
    ),
    "one prompt for all": Read(
        jsonl(lambda n: {"prompt": ask(0), "completion": answer(n)}), PC, **BOTH, notes=("24 rows ask the same",)
    ),
    # refused
    "chosen, rejected": Refused(
        jsonl(lambda n: {"prompt": ask(n), "chosen": "a", "rejected": "b"}), ("preference data", "completion=chosen")
    ),
    "response_a, response_b": Refused(jsonl(lambda n: {"prompt": ask(n), "response_a": "a", "response_b": "b"}), ("preference data",)),
    "kto": Refused(jsonl(lambda n: pairs(n, label=n % 2 == 0)), ("wanted or not", "`label` is true")),
    "kto of messages": Refused(
        jsonl(lambda n: {"prompt": chat(n)[:1], "completion": chat(n)[1:], "label": n % 2 == 0}), ("wanted or not",)
    ),
    "marks of images": Refused(jsonl(lambda n: pairs(n) | {"prompt": f"<image>{ask(n)}"}), ("<image>",)),
    "labels of tokens": Refused(jsonl(lambda n: {"tokens": ["a", ask(n)], "ner_tags": [0, 1]}), ("single tokens",)),
    "segments with marks": Refused(jsonl(lambda n: {"segments": [{"label": True, "text": ask(n)}]}), ("`segments` must be text",)),
    "two columns of much text": Refused(jsonl(lambda n: {"text": ask(n), "remarks_made": about(n)}), ("both hold much text", "--prompt")),
    "rewards": Refused(jsonl(lambda n: pairs(n, reward=n / 10)), ("score", "keep the rows")),
    "ratings": Refused(jsonl(lambda n: pairs(n, "instruction", "output", rating=n % 5)), ("score", "--columns")),
    "a reward a conversation": Refused(jsonl(lambda n: {"messages": chat(n), "reward": n / 10}), ("reward",)),
    "messages of threads": Refused(
        jsonl(lambda n: {"text": ask(n), "role": ("prompter", "assistant")[n % 2], "parent_id": f"{n}"}), ("one message", "parent_id")
    ),
    "turns of dialogues": Refused(
        jsonl(lambda n: {"dialogue_id": n // 2, "speaker": ("Ann", "Bob")[n % 2], "utterance": ask(n)}), ("one message", "dialogue_id")
    ),
    "images": Refused(jsonl(lambda n: pairs(n, image=f"{n}.png")), ("pictures", "image")),
    "image parts": Refused(
        jsonl(
            lambda n: {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": ask(n)}]},
                    chat(n)[1],
                ]
            }
        ),
        ("pictures",),
    ),
    "tokens": Refused(jsonl(lambda n: {"input_ids": [n, 1], "attention_mask": [1, 1]}), ("tokenised",)),
    "several labels": Refused(jsonl(lambda n: {"text": ask(n), "labels": ["a", "b"]}), ("multi-label",)),
    "several labels in a table": Refused(table(lambda n: {"text": ask(n), "labels": "['a', 'b']"}), ("multi-label",)),
    "measures as labels": Refused(jsonl(lambda n: {"text": ask(n), "label": n / 7}), ("regression", "classes")),
    "similarity of two sentences": Refused(
        jsonl(lambda n: {"sentence1": ask(n), "sentence2": about(n), "score": n / 7}), ("regression",)
    ),
    "a label a row": Refused(jsonl(lambda n: {"text": ask(n), "label": answer(n)}), ("labels must repeat", "completion")),
    "one label for all": Refused(jsonl(lambda n: {"text": ask(n), "label": "a"}), ("at least two labels",)),
    "only unknown speakers": Refused(
        jsonl(lambda n: {"messages": chat(n, assistant="asistant")}), ("unknown role", "did you mean `assistant`")
    ),
    "questions alone": Refused(jsonl(lambda n: {"question": ask(n)}), ("no column has the name of an answer", "columns text=question")),
    "questions and a passage": Refused(
        jsonl(lambda n: {"passage": about(n), "question": ask(n), "spans": {"at": [1]}}), ("the rows ask (`question`)",)
    ),
    "code and its words": Refused(jsonl(lambda n: {"code": about(n) * 3, "docstring": ask(n)}), ("both hold much text",)),
    "a mark in each of several columns": Refused(
        jsonl(lambda n: {"comment_text": ask(n), "toxic": n % 2, "insult": n % 3 // 2, "threat": 0}), ("multi-label", "label=toxic")
    ),
    "an example with the names at hand": Refused(
        jsonl(lambda n: {"customer_message": ask(n), "agent_words": answer(n)}), ("prompt=customer_message,completion=agent_words",)
    ),
    "preferences without a prompt": Refused(
        jsonl(lambda n: {"chosen": answer(n), "rejected": about(n)}), ("preference data", "--columns text=chosen")
    ),
    "two unknown columns": Refused(jsonl(lambda n: {"aa": ask(n), "bb": answer(n)}), ("--columns", "known format")),
    "two languages": Refused(jsonl(lambda n: {"translation": {"en": ask(n), "de": answer(n)}}), ("translation",)),
    "all rows the same": Refused(jsonl(lambda n: pairs(0)), ("no split is possible",)),
    "too few rows": Refused(jsonl(pairs, rows=5), ("at least 8 rows",)),
    "a list in a file of lines": Refused(text(json.dumps([pairs(n) for n in range(NUM_ROWS)]), name="r.jsonl"), ("holds a list", "r.json")),
    "objects over several lines": Refused(
        text("\n".join(json.dumps(pairs(n), indent=1) for n in range(NUM_ROWS)), name="r.jsonl"), ("not valid JSON", "jq -c")
    ),
    "a table named as text": Refused(text("".join(f"{label(n)}\t{ask(n)}\n" for n in range(NUM_ROWS)), name="r.txt"), ("table", "r.tsv")),
    "labels before lines of text": Refused(
        text("".join(f"__label__{label(n)} {ask(n)}\n" for n in range(NUM_ROWS)), name="r.txt"), ("`__label__...`",)
    ),
    "only test rows": Refused(folder_of(test_dot_jsonl=jsonl(pairs)), ("only validation or test",)),
    "a spreadsheet": Refused(text("PK", name="rows.xlsx"), ("CSV",)),
    "a zip": Refused(text("PK", name="rows.zip"), ("unzip",)),
    "a damaged gzip": Refused(text("no gzip at all", name="rows.jsonl.gz"), ("damaged",)),
    "a damaged parquet": Refused(text("PAR1 nothing", name="rows.parquet"), ("not a valid Parquet file",)),
    "a format string with no such column": Refused(jsonl(pairs), ("no column `promt`", "did you mean `prompt`"), {"prompt": "{promt}"}),
    "a format string without a column": Refused(jsonl(pairs), ("must name a column",), {"prompt": "hello"}),
    "a broken format string": Refused(jsonl(pairs), ("not a format string",), {"prompt": "{prompt"}),
    "a format string that reaches inside": Refused(
        jsonl(pairs), ("no column `prompt.__class__`",), {"prompt": "{prompt.__class__}"}
    ),
    "a format string with a width": Refused(jsonl(pairs), ("takes columns as",), {"prompt": "{prompt:>10}"}),
    "columns of an unknown meaning": Refused(jsonl(pairs), ("does not know `promt`",), {"columns": {"promt": "prompt"}}),
    "half a compressed line": Refused(text('{"prompt": "a"\n', name="rows.jsonl"), ("not valid JSON",)),
}  # fmt: skip
