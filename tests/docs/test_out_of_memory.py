"""The recipe on the page that makes a case of memory that ran out: it runs, and shows what the page says that it shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parent.parent.parent / "docs" / "using_the_result.md"


def test_the_recipe_shows_where_it_is_said_that_memory_ran_out(tmp_path):
    part = PAGE.read_text(encoding="utf-8").partition("### Try it")[2]
    (script,) = re.findall(r"^```\n(.*?)^```", part, flags=re.M | re.S)
    script = f'finestep() {{ "{sys.executable}" -m finestep "$@"; }}\n{script}'
    done = subprocess.run(["sh", "-ec", script], cwd=tmp_path, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    first, said = tmp_path / "oom" / "trials" / "0000", "memory ran out at micro-batch"
    assert [said in line for line in (first / "notes.jsonl").read_text().splitlines()] == [True, True]
    assert "at 8 rows" in (first / "output.log.stale-1").read_text()
    assert "at 4 rows" in (first / "output.log.stale-2").read_text()
    assert not (tmp_path / "oom" / "trials" / "0001" / "notes.jsonl").exists(), "later trials begin with what fits"
    result = json.loads((tmp_path / "oom" / "result.json").read_text())
    assert {trial["state"] for trial in result["trials"]} == {"completed"}
    assert len(result["memory"]) == (2 if result["best"]["trial"] == 0 else 0)
    assert ("memory ran out" in done.stdout.partition("validation")[2]) == bool(result["memory"])
