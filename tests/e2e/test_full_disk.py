"""A full disk under the journal: events are refused with a reason, nothing acknowledged is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from infra.settings import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TALK = """
    import asyncio, json, os, sys, time
    from pathlib import Path
    import httpx
    from components.serving.api import make_api
    from components.serving.engine import Engine, EngineConfig
    from data.journal import read_frames
    from data.schema import CLICK, stable_hash
    from infra.clock import ManualClock
    from tests.unit.components.search_world import NOW_US
    from tests.unit.components.serving_world import make_home, publish_release

    disk = Path(sys.argv[1])
    layout = make_home(disk)
    publish_release(layout)
    engine = Engine(layout, ManualClock(NOW_US), config=EngineConfig(gather_s=0.005))
    engine.start()
    said, acked = [], []

    async def until(client, settled):
        for _ in range(1200):
            if settled((await client.get("/health")).json()["problems"]):
                return
            await asyncio.sleep(0.05)

    async def talk():
        transport = httpx.ASGITransport(make_api(engine))
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            async def click(key):
                event = {"kind": "click", "item_id": 1000, "event_key": key, "query": "x" * 900}
                reply = await client.post("/events", json=[event] * 1 )
                if reply.status_code == 202:
                    acked.append(key)
                return reply

            for i in range(20):
                said.append((await click(f"before-{i}")).status_code)
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(b"x" * 65536)
                except OSError:
                    pass
                try:
                    while True:
                        file.write(b"x")
                except OSError:
                    pass
            full = []
            for i in range(60):  # what is left of the last blocks is used up first
                full.append(await click(f"full-{i}"))
                await client.get("/search?q=boots")
            refused = [r for r in full if r.status_code != 202]
            put = await client.put("/items/new", json={"title": "y" * 9000})
            await until(client, lambda problems: problems)
            search, health = await client.get("/search?q=boots"), await client.get("/health")
            filler.unlink()
            again = [(await click(f"after-{i}")).status_code for i in range(5)]
            await client.get("/search?q=boots")
            await until(client, lambda problems: not problems)
            well = await client.get("/health")
            return {
                "before": said, "refused": [r.status_code for r in refused],
                "reason": refused[-1].json()["error"], "retry": refused[-1].headers.get("retry-after"),
                "put": put.status_code, "search": [search.status_code, len(search.json()["items"])],
                "health": [health.status_code, health.json()["problems"]],
                "after": again, "well": [well.status_code, well.json()["problems"]],
            }

    told = asyncio.run(talk())
    engine.close()
    kept = []
    for path in sorted((layout.journal / "serve-0").glob("*.log")):
        for _, table in read_frames(path):
            kept += [r["event_id"] for r in table.to_pylist() if r["kind"] == CLICK]
    wanted = [stable_hash("event_key " + k) & ((1 << 63) - 1) for k in acked]
    told |= {"acked": len(acked), "kept_once": sorted(kept) == sorted(wanted)}
    print(json.dumps(told))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_full_disk_refuses_events_and_loses_none_that_was_acknowledged(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    script = tmp_path / "talk.py"
    script.write_text(textwrap.dedent(TALK))
    own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    commands = (
        f'mount -t tmpfs -o size=64m tmpfs {disk} || exit 77\nexec "{sys.executable}" {script} {disk}\n'
    )
    done = subprocess.run(
        ["unshare", *own, "--mount", "sh", "-c", commands],
        cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
        timeout=900,
    )  # fmt: skip
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("this machine lets nobody mount a small disk")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["before"] == [202] * 20
    assert told["refused"]
    assert set(told["refused"]) == {503}
    assert "No space left" in told["reason"]["found"]
    assert told["retry"] == "1"
    assert told["put"] == 503
    assert told["search"] == [200, 10]  # shoppers notice nothing
    assert told["health"][0] == 200
    assert any("not journalled" in p and "No space left" in p for p in told["health"][1])
    assert told["after"] == [202] * 5  # room again: by itself
    assert told["well"] == [200, []]
    assert told["kept_once"], told  # what was acknowledged is there once, what was refused is not
