"""A whole study through the client of the Model Context Protocol, as an agent runs it; and what it is told when something fails."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

pytest.importorskip("mcp")
from mcp import Client, StdioServerParameters

ROWS = [{"prompt": f"Say {n} again.", "completion": f"{n}", "note": "a remark that nobody reads"} for n in range(40)]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def talk(conversation, monkeypatch, tmp_path):
    """Play a conversation with a server that runs as `finestep mcp`."""
    import os

    place = {**os.environ, "FINESTEP_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    server = StdioServerParameters(command=sys.executable, args=["-m", "finestep", "mcp"], env=place)

    async def play():
        async with Client(server) as client:

            async def ask(tool, **arguments):
                answer = await client.call_tool(tool, arguments)
                text = "".join(part.text for part in answer.content)
                return (not answer.is_error), json.loads(text[text.index("{") :])

            await conversation(client, ask)

    asyncio.run(asyncio.wait_for(play(), timeout=300))


@pytest.mark.long
def test_a_whole_study_from_the_data_to_the_export(rows, monkeypatch, tmp_path):
    study = tmp_path / "study"

    async def conversation(client, ask):
        assert "not used" in (await client.list_tools()).model_dump_json()
        assert "80 % interval" in client.instructions
        _, seen = await ask("inspect_data", data=str(rows))
        assert any("`note`" in note for note in seen["notes"])
        _, advice = await ask("recommend", model="shipped", data=str(rows))
        assert advice["recipe"]["method"] == "lora"
        settings = ["max_length=48", "num_epochs=1"]
        fine, _ = await ask("start_study", model="shipped", data=str(rows), out=str(study), budget=1, settings=settings)
        assert fine
        fine, busy = await ask("start_study", model="shipped", data=str(rows), out=str(study), budget=1)
        assert (fine, busy["kind"]) == (False, "StudyBusy")
        while (now := (await ask("wait_for_study", study=str(study), timeout_s=20))[1])["working"]:
            pass
        assert now["best"]["eval_loss"] > 0
        _, result = await ask("study_result", study=str(study))
        assert result["best"]["trial"] == now["best"]["trial"]
        assert result["settled"] is False
        _, made = await ask(
            "export_recipe",
            study=str(study),
            framework="hf",
            output=str(tmp_path / "out"),
            model="shipped",
            data=str(rows),
        )
        assert made["files"]
        assert made["command"]

    talk(conversation, monkeypatch, tmp_path)


def test_what_fails_says_the_next_step(rows, monkeypatch, tmp_path):
    async def conversation(client, ask):
        fine, told = await ask("inspect_data", data=str(tmp_path / "nothing.jsonl"))
        assert not fine
        assert told["exit_code"] == 2
        assert "no such data file" in told["message"]
        assert told["next_step"]
        fine, told = await ask("study_status_of", study=str(tmp_path))
        assert not fine
        assert "no study" in told["message"]

    talk(conversation, monkeypatch, tmp_path)


@pytest.mark.long
def test_a_study_is_stopped_and_goes_on(rows, monkeypatch, tmp_path):
    study = tmp_path / "study"

    async def conversation(client, ask):
        long = {
            "model": "shipped",
            "data": str(rows),
            "out": str(study),
            "budget": 1,
            "settings": ["max_length=48", "num_epochs=30"],
        }
        await ask("start_study", **long)
        now = {"working": True, "under_way": []}
        while now["working"] and not any(one["step"] for one in now["under_way"]):
            await asyncio.sleep(0.5)
            _, now = await ask("study_status_of", study=str(study))
        _, answer = await ask("stop_study", study=str(study))
        assert answer == {"stopping": True}
        while (now := (await ask("wait_for_study", study=str(study), timeout_s=3))[1])["working"]:
            pass
        assert now["best"] is None
        await ask("start_study", **long)
        while (now := (await ask("wait_for_study", study=str(study), timeout_s=20))[1])["working"]:
            pass
        assert now["trials"] == {"completed": 1}

    talk(conversation, monkeypatch, tmp_path)
