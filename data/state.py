"""What is true now about catalogue, counters, users and sessions: a fold over events.

The same code runs online (a replica applies its journal) and offline (training replays
history to get features as of each event). It knows nothing of queries' meaning or of models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from data.codes import CODES, TEXT_FIELDS, code_of, item_text
from data.event_batch import Batch
from data.payloads import Payloads, number_of
from data.schema import ITEM_DELETE, USER_UPSERT
from data.state_arrays import (
    HALF_LIVES_US,
    ITEM_COLUMNS,
    TOKENS,
    USER_COLUMNS,
    EventArrays,
    ItemArrays,
    PairArrays,
    RequestArrays,
    SessionArrays,
    UserArrays,
    columns,
    empty_pairs,
    empty_requests,
    empty_sessions,
    grown,
    newest_first,
)
from data.state_files import load_arrays, save_arrays, state_hash
from data.state_kernel import fold_events, session_slot
from data.text import token_hashes

__all__ = ["DF_BUCKETS", "TOKENS", "State"]

CODED = ("category", "brand", "colour", "material", "gender")

DF_BUCKETS = 1 << 16


class State:
    """Catalogue, counters, users and sessions as of the last event applied.

    Row numbers are stable: rows are only appended. `items`, `users`, `sessions`, `pairs` are the
    arrays themselves (with spare capacity); the properties give views of the rows in use.
    """

    def __init__(self) -> None:
        self.items = ItemArrays(*columns(ITEM_COLUMNS, 1024))
        self.users = UserArrays(*columns(USER_COLUMNS, 1024))
        self.sessions: SessionArrays = empty_sessions()
        self.pairs: PairArrays = empty_pairs()
        self.requests: RequestArrays = empty_requests()
        self.category_price: NDArray[np.float64] = np.zeros((CODES, 2))  # sum of log prices, count
        self.document_frequency: NDArray[np.int32] = np.zeros(DF_BUCKETS, np.int32)
        self.documents = 0
        self.n_items = 0
        self.n_users = 0
        self.as_of_us = 0
        self._payloads = Payloads()
        self._item_rows: dict[int, int] = {}
        self._user_rows: dict[int, int] = {}
        self._mutations: list[int] = []
        self._mutations_base = 0
        self._bound: tuple[Batch, EventArrays, NDArray[np.int64], NDArray[np.int64]] | None = None
        self._met = 0

    # ---- reading ----

    @property
    def catalogue_version(self) -> int:
        """The number of catalogue changes so far."""
        return self._mutations_base + len(self._mutations)

    @property
    def item_ids(self) -> NDArray[np.int64]:
        """int64 [n_items]."""
        return self.items.item_ids[: self.n_items]

    @property
    def payloads(self) -> list[str]:
        """The items' JSON by row."""
        return self._payloads.all()

    @property
    def alive(self) -> NDArray[np.bool_]:
        """bool [n_items]: not deleted."""
        return self.items.alive[: self.n_items]

    @property
    def price(self) -> NDArray[np.float32]:
        """float32 [n_items]."""
        return self.items.price[: self.n_items]

    @property
    def stock(self) -> NDArray[np.int32]:
        """int32 [n_items]."""
        return self.items.stock[: self.n_items]

    @property
    def category(self) -> NDArray[np.int32]:
        """int32 [n_items] categorical codes."""
        return self.items.category[: self.n_items]

    @property
    def created_us(self) -> NDArray[np.int64]:
        """int64 [n_items]."""
        return self.items.created_us[: self.n_items]

    @property
    def photo(self) -> NDArray[np.int32]:
        """int32 [n_items] photo indices, -1 none."""
        return self.items.photo[: self.n_items]

    @property
    def tokens(self) -> NDArray[np.uint32]:
        """uint32 [n_items, 24] token hashes, 0-padded."""
        return self.items.tokens[: self.n_items]

    def item_row(self, item_id: int) -> int:
        """The row of an item, -1 if it was never seen."""
        return self._item_rows.get(int(item_id), -1)

    def item_rows(self, item_ids: NDArray[np.int64]) -> NDArray[np.int32]:
        """int32 [n] rows, -1 for unknown."""
        get = self._item_rows.get
        return np.fromiter((get(i, -1) for i in item_ids.tolist()), np.int32, len(item_ids))

    def user_row(self, user_id: int) -> int:
        """The row of a user, -1 if never seen."""
        return self._user_rows.get(int(user_id), -1)

    def payload(self, row: int) -> str:
        """The item's JSON as of its last upsert, merged over earlier ones."""
        return self._payloads.get(row)

    def changed_since(self, version: int) -> NDArray[np.int32]:
        """Rows upserted or deleted since that catalogue_version, in order; may repeat.

        Raises ValueError for a version older than this state remembers.
        """
        if version < self._mutations_base:
            raise ValueError(f"catalogue version {version} is older than {self._mutations_base}")
        return np.array(self._mutations[version - self._mutations_base :], np.int32)

    def session_slot(self, session_id: int) -> int:
        """The slot of a session that has clicked, -1 otherwise."""
        if session_id == -1:
            return -1
        slot = int(session_slot(session_id))
        return slot if self.sessions.session_ids[slot] == session_id else -1

    def recent_items(self, user_row: int, session_id: int) -> NDArray[np.int32]:
        """Rows clicked most recently, the session's first, then the user's; newest first; k ≤ 16."""
        rows: list[int] = []
        slot = self.session_slot(session_id)
        if slot >= 0:
            rows += newest_first(self.sessions.recent[slot], int(self.sessions.recent_n[slot]))
        if user_row >= 0:
            rows += newest_first(self.users.recent[user_row], int(self.users.recent_n[user_row]))
        return np.array(list(dict.fromkeys(rows))[:16], np.int32)

    def bought(self, user_row: int) -> NDArray[np.int32]:
        """Rows ordered most recently, newest first; k ≤ 8."""
        if user_row < 0:
            return np.empty(0, np.int32)
        return np.array(
            newest_first(self.users.bought[user_row], int(self.users.bought_n[user_row])), np.int32
        )

    def popularity(self, now_us: int) -> NDArray[np.float64]:
        """Click and purchase rate, smoothed and corrected for position: float64 [n_items].

        (clicks + 2 carts + 3 orders + 10 x the shop's own rate) / (exposure + 10) over the long
        half-life: what tiers and popular items go by. Smoothed towards anything but the shop's rate, it
        would rank items by how often they were shown. Without any exposure all have 0.05.
        """
        n = self.n_items
        age = np.maximum(now_us - self.items.counted_us[:n], 0)
        decay = np.exp2(-age / HALF_LIVES_US[1])
        c = self.items.counters[:n, 1, :] * decay[:, None]
        reactions = c[:, 2] + 2 * c[:, 3] + 3 * c[:, 4]
        exposure = float(c[:, 0].sum())
        usual = float(reactions.sum()) / exposure if exposure > 0 else 0.05
        return np.asarray((reactions + 10 * usual) / (c[:, 0] + 10), np.float64)

    # ---- the fold ----

    def reserve(self, *, items: int) -> None:
        """Make room for that many item rows at once (rows beyond `n_items` hold "none")."""
        if items > len(self.items.item_ids):
            self.items = grown(self.items, ITEM_COLUMNS, items)

    def apply(self, events: pa.Table) -> None:
        """Fold events in the order given (the canonical one, except in a live replica)."""
        if events.num_rows:
            self.fold(Batch(events), 0, events.num_rows)

    def fold(self, batch: Batch, start: int, stop: int) -> None:
        """Fold the batch's events [start, stop); a batch is folded from its start on, in pieces or whole."""
        if start >= stop:
            return
        events = self.bind(batch)
        first, last = np.searchsorted(batch.changes, (start, stop))
        at = start
        for i in batch.changes[first:last].tolist():
            self._fold_run(events, at, i)
            self.change(batch, i)
            at = i + 1
        self._fold_run(events, at, stop)
        self.as_of_us = max(self.as_of_us, int(batch.known_us[start:stop].max()))

    def bind(self, batch: Batch) -> EventArrays:
        """The batch's events by row of this state, with the rows that they will make."""
        if self._bound is None or self._bound[0] is not batch:
            rows = batch.rows_in(self._item_rows, self._user_rows)
            events = EventArrays(
                batch.kind,
                batch.event_us,
                rows.item_row,
                rows.user_row,
                batch.session_id,
                batch.request_id,
                batch.query_key,
                batch.position,
            )
            self._bound = (batch, events, rows.new_users, rows.new_users_at)
            self._met = 0
        return self._bound[1]

    def meet_users(self, stop: int) -> None:
        """Give the bound batch's users that appear before position `stop` their rows."""
        assert self._bound is not None
        _, _, ids, at = self._bound
        while self._met < len(ids) and at[self._met] < stop:
            self._add_user(int(ids[self._met]))
            self._met += 1

    def _fold_run(self, events: EventArrays, start: int, stop: int) -> None:
        if start < stop:
            self.meet_users(stop)
            fold_events(
                self.items, self.users, self.sessions, self.pairs, self.requests, self.category_price,
                self.n_items, events, start, stop,
            )  # fmt: skip

    def _add_user(self, user_id: int) -> int:
        if self.n_users == len(self.users.user_ids):
            self.users = grown(self.users, USER_COLUMNS, 2 * self.n_users)
        row = self.n_users
        self.users.user_ids[row] = user_id
        self._user_rows[user_id] = row
        self.n_users += 1
        return row

    def change(self, batch: Batch, i: int) -> None:
        """Fold the one upsert or delete at position i of the bound batch."""
        self.meet_users(i + 1)
        self.as_of_us = max(self.as_of_us, int(batch.known_us[i]))
        kind = int(batch.kind[i])
        if kind == USER_UPSERT:
            user_id = int(batch.user_id[i])
            row = self._user_rows.get(user_id, -1)
            if row < 0:
                return
            payload = batch.payload(i)
            for name in ("gender", "age", "purchasing_power"):
                column = getattr(self.users, name)
                if (value := number_of(payload, name, column.dtype)) is not None:
                    column[row] = int(value)
            return
        item_id = int(batch.item_id[i])
        row = self._item_rows.get(item_id, -1)
        if kind == ITEM_DELETE:
            if row >= 0 and self.items.alive[row]:
                self._count_text(row, -1)
                self._count_price(row, -1)
                self.items.alive[row] = False
                self._mutations.append(row)
            return
        new = row < 0
        if new:
            if self.n_items == len(self.items.item_ids):
                self.items = grown(self.items, ITEM_COLUMNS, 2 * self.n_items)
            row = self.n_items
            self.items.item_ids[row] = item_id
            self._item_rows[item_id] = row
            self._payloads.append()
            self.items.stock[row] = 1
            self.items.created_us[row] = int(batch.event_us[i])
            self.n_items += 1
        self._upsert(row, batch.payload(i), int(batch.event_us[i]), new=new)
        self._mutations.append(row)

    def _upsert(self, row: int, change: dict[str, Any], time_us: int, *, new: bool) -> None:
        items = self.items
        self._payloads.change(row, change, time_us)
        alive = bool(items.alive[row])
        worded = not alive or any(name in change for name in TEXT_FIELDS)
        if alive:
            self._count_price(row, -1)
            if worded:
                self._count_text(row, -1)
        for name in ("price", "list_price", "stock", "photo"):
            column = getattr(items, name)
            if (value := number_of(change, name, column.dtype)) is not None:
                column[row] = value
        if (created := number_of(change, "created_at", np.int64)) is not None:
            items.created_us[row] = int(created)
        self._rate(row, *(number_of(change, name, np.float32) for name in ("rating_sum", "rating_count")))
        for name in CODED:
            if name in change:
                getattr(items, name)[row] = code_of(str(change[name] or ""))
        if worded:
            whole = change if new else orjson.loads(self._payloads.get(row))
            found = list(dict.fromkeys(token_hashes(item_text(whole)).tolist()))[:TOKENS]
            items.tokens[row] = 0
            items.tokens[row, : len(found)] = found
            self._count_text(row, 1)
        items.alive[row] = True
        self._count_price(row, 1)

    def _rate(self, row: int, total: float | None, count: float | None) -> None:
        if total is None and count is None:
            return
        items = self.items
        if total is None:
            total = float(items.rating[row]) * float(items.rating_count[row])
        if count is None:
            count = float(items.rating_count[row])
        items.rating[row] = total / count if count > 0 else np.nan
        items.rating_count[row] = count

    def _count_text(self, row: int, sign: int) -> None:
        held = self.items.tokens[row]
        np.add.at(self.document_frequency, held[held != 0] & (DF_BUCKETS - 1), sign)
        self.documents += sign

    def _count_price(self, row: int, sign: int) -> None:
        if self.items.price[row] > 0:
            self.category_price[self.items.category[row], 0] += sign * np.log(float(self.items.price[row]))
            self.category_price[self.items.category[row], 1] += sign

    # ---- whole states ----

    def _arrays(self) -> dict[str, NDArray[Any]]:
        found = {f"items.{k}": v[: self.n_items] for k, v in self.items._asdict().items()}
        found |= {f"users.{k}": v[: self.n_users] for k, v in self.users._asdict().items()}
        found |= {f"sessions.{k}": v for k, v in self.sessions._asdict().items()}
        found |= {f"pairs.{k}": v for k, v in self.pairs._asdict().items()}
        found |= {f"requests.{k}": v for k, v in self.requests._asdict().items()}
        found["category_price"] = self.category_price
        found["document_frequency"] = self.document_frequency
        return {k: np.ascontiguousarray(v) for k, v in found.items()}

    def _scalars(self) -> dict[str, int]:
        return {"as_of_us": self.as_of_us, "documents": self.documents}

    def content_hash(self) -> str:
        """Hex SHA-256 over everything that the state holds."""
        return state_hash(self._arrays(), self._scalars(), self._payloads.all())

    def save(self, folder: Path) -> None:
        """Write the state into a new folder, whole or not at all."""
        scalars = self._scalars() | {"catalogue_version": self.catalogue_version}
        save_arrays(folder, self._arrays(), scalars, self._payloads.all())

    @classmethod
    def load(cls, folder: Path) -> State:
        """Read a saved state. Raises DataError where it is damaged or of another schema."""
        arrays, scalars, payloads = load_arrays(folder)

        def of(kind: Any, prefix: str) -> Any:
            return kind(*(arrays[f"{prefix}.{name}"] for name in kind._fields))

        state = cls()
        state.n_items, state.n_users = len(arrays["items.item_ids"]), len(arrays["users.user_ids"])
        room_items = max(1024, state.n_items + state.n_items // 4)
        room_users = max(1024, state.n_users + state.n_users // 4)
        state.items = grown(of(ItemArrays, "items"), ITEM_COLUMNS, room_items)
        state.users = grown(of(UserArrays, "users"), USER_COLUMNS, room_users)
        state.sessions, state.pairs = of(SessionArrays, "sessions"), of(PairArrays, "pairs")
        state.requests = of(RequestArrays, "requests")
        state.category_price = arrays["category_price"]
        state.document_frequency = arrays["document_frequency"]
        state.documents, state.as_of_us = scalars["documents"], scalars["as_of_us"]
        state._payloads = Payloads(payloads)
        state._item_rows = {i: r for r, i in enumerate(state.item_ids.tolist())}
        state._user_rows = {i: r for r, i in enumerate(state.users.user_ids[: state.n_users].tolist())}
        state._mutations_base = scalars["catalogue_version"]
        return state
