"""What ingest published, as it is now and as it was at an earlier commit.

Parts are immutable Parquet files in canonical order; the status document names those that count.
`as_of` takes the snapshot that a training recorded, so that it can be repeated. It opens no store, and
does not know what a training takes of the events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from data.content import content_hash, hash_text
from data.schema import EVENT_SCHEMA, KINDS, canonical
from infra.errors import ConfigError, DataError
from infra.settings import Home

__all__ = [
    "STATUS_SCHEMA",
    "Published",
    "as_of",
    "content_hash",
    "floor_folder",
    "published",
    "read_events",
    "read_status",
]

STATUS_SCHEMA = 1  # of the status document; a newer number is of a newer Shelflife

_PART_SCHEMA = EVENT_SCHEMA.append(pa.field("commit_number", pa.int32())).append(pa.field("gone", pa.int32()))


@dataclass(frozen=True)
class Published:
    """The store as last published. `applied`: writer → sequence number up to which all is in."""

    parts: tuple[Path, ...]
    watermark_us: int
    rows: int
    content_hash: str
    commit: int
    applied: dict[str, int]
    kinds: dict[str, int] = field(default_factory=dict)
    quarantine: dict[str, int] = field(default_factory=dict)
    spans: tuple[tuple[int, int], ...] = ()  # (first, last) known_time of each part, us
    commits: tuple[tuple[int, int], ...] = ()  # (first, last) commit of each part
    starts: dict[int, int] = field(default_factory=dict)  # newest commits → their first known_time, us
    replaced: bool = False  # whether parts hold rows that better ones replaced
    floor_us: int = 0  # known_time from which events are kept; 0 from the first
    floor_state: Path | None = None  # folder of the state of all before the floor
    expired: str = ""  # content hash of what retention removed
    as_of: int | None = None  # an earlier commit whose events are meant


def read_status(layout: Home) -> dict[str, Any]:
    """The published status document. Raises DataError where nothing was ingested yet."""
    path = layout.snapshots / "status.json"
    try:
        status: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"nothing is ingested in {layout.root} yet; run `shelflife ingest`") from None
    except ValueError as error:
        raise DataError(f"{path} is no JSON document ({error}); `shelflife ingest` writes it anew") from None
    if status.get("schema", 0) > STATUS_SCHEMA:
        raise DataError(
            f"{layout.root} is of a newer Shelflife (status schema {status['schema']}, this one knows "
            f"{STATUS_SCHEMA}); update Shelflife or choose another --home"
        )
    return status


def published(layout: Home) -> Published:
    """What ingest last published. Raises DataError where there is nothing."""
    status = read_status(layout)
    folder = layout.snapshots / "events"
    floor = status.get("floor", {})
    return Published(
        tuple(folder / p["file"] for p in status["parts"]),
        status["watermark_us"],
        status["rows"],
        status["content_hash"],
        status["commit"],
        dict(status["applied"]),
        {KINDS[int(k)]: n for k, n in status["kinds"].items()},
        dict(status["quarantine"]),
        tuple((p["first_us"], p["last_us"]) for p in status["parts"]),
        tuple((p["commits"][0], p["commits"][1]) for p in status["parts"] if "commits" in p),
        {int(k): us for k, us in status.get("starts", {}).items()},
        any(p.get("gone", 0) for p in status["parts"]),
        floor.get("us", 0),
        layout.snapshots / floor["state"] if floor.get("state") else None,
        floor.get("expired", ""),
    )


def floor_folder(floor_us: int) -> str:
    """The name of the folder that holds the state of all events known before a floor."""
    return f"floor-{floor_us:020d}"


def as_of(held: Published, snapshot: Mapping[str, Any]) -> Published:
    """What was published at the commit of a training's snapshot, as far as retention keeps it.

    `snapshot`: commit, watermark_us, rows, content_hash and `expired` of then. Raises DataError where the
    window begins before what is kept, or where late events from before the floor came in since.
    """
    commit = int(snapshot["commit"])
    if int(snapshot["since_us"]) < held.floor_us and held.expired != snapshot.get("expired", ""):
        raise DataError(
            f"the snapshot's window begins at {snapshot['since_us']} us, but events are kept only from "
            f"{held.floor_us} us on (retention); train anew, or keep more with SHELFLIFE_RETENTION_D"
        )
    keep = [i for i, (first, _) in enumerate(held.commits) if first <= commit]
    then = replace(
        held,
        parts=tuple(held.parts[i] for i in keep),
        spans=tuple(held.spans[i] for i in keep),
        commits=tuple(held.commits[i] for i in keep),
        watermark_us=int(snapshot["watermark_us"]),
        rows=int(snapshot["rows"]),
        content_hash=str(snapshot["content_hash"]),
        commit=commit,
        as_of=commit,
    )
    found = content_hash(read_events(then))
    lost = _less(str(snapshot["content_hash"]), _less(held.expired, str(snapshot.get("expired", ""))))
    if found != lost:
        raise DataError(
            f"the events of commit {commit} have content {found}, expected {lost}: some were removed or "
            "came in late since; the training cannot be repeated from this home"
        )
    return then


def _less(whole: str, part: str) -> str:
    """The content hash of what a set holds beside a part of it; "" stands for nothing."""
    (a_rows, a), (b_rows, b) = ((int(x, 16) for x in (text or "0-0").split("-")) for text in (whole, part))
    return hash_text(a_rows - b_rows, a - b)


def read_events(
    published: Published,
    *,
    since_us: int | None = None,
    until_us: int | None = None,
    kinds: Sequence[int] | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Events with `since_us` <= known_time < `until_us`, of these kinds, in canonical order.

    Raises DataError where a published part is missing or damaged.
    """
    names = list(columns) if columns is not None else EVENT_SCHEMA.names
    unknown = set(names) - set(EVENT_SCHEMA.names)
    if unknown:
        raise ConfigError(
            f"unknown event column {sorted(unknown)[0]!r}; expected some of {EVENT_SCHEMA.names}"
        )
    wanted = [*names, *(n for n in ("known_time", "event_id") if n not in names)]
    schema = pa.schema([EVENT_SCHEMA.field(n) for n in wanted])
    parts = [
        str(path)
        for path, (first, last) in zip(published.parts, published.spans, strict=True)
        if (since_us is None or last >= since_us) and (until_us is None or first < until_us)
    ]
    if not parts:
        return schema.empty_table().select(names)
    keep = ds.scalar(True)
    if published.as_of is not None:
        born, gone = ds.field("commit_number"), ds.field("gone")
        keep = (born.is_null() | (born <= published.as_of)) & (gone.is_null() | (gone > published.as_of))
    elif published.replaced:
        keep = ds.field("gone").is_null()
    if since_us is not None:
        keep = keep & (ds.field("known_time") >= since_us)
    if until_us is not None:
        keep = keep & (ds.field("known_time") < until_us)
    if kinds is not None:
        keep = keep & ds.field("kind").isin(list(kinds))
    try:
        events = ds.dataset(parts, schema=_PART_SCHEMA, format="parquet").to_table(
            columns=wanted, filter=keep
        )
    except (pa.ArrowException, OSError) as error:
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"a published part cannot be read ({text}); remove it and run `shelflife ingest`"
        ) from error
    return canonical(events.combine_chunks()).select(names)
