"""One line an event."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.log import LineFormatter, setup_logging


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)
    for handler in [h for h in root.handlers if isinstance(h.formatter, LineFormatter)]:
        root.removeHandler(handler)
        handler.close()


def test_an_event_is_one_line_with_time_level_and_name(tmp_path: Path) -> None:
    setup_logging(file=tmp_path / "logs" / "x.log")
    logging.getLogger("data.store").info("%d rows", 12)
    text = (tmp_path / "logs" / "x.log").read_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO data\.store: 12 rows\n", text)


def test_a_traceback_stays_on_its_line(tmp_path: Path) -> None:
    setup_logging(file=tmp_path / "x.log")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("x").exception("it failed")
    lines = (tmp_path / "x.log").read_text().splitlines()
    assert len(lines) == 1
    assert "it failed" in lines[0]
    assert "ValueError: broken" in lines[0]


def test_setting_up_twice_does_not_log_twice(tmp_path: Path) -> None:
    setup_logging(file=tmp_path / "old.log")
    setup_logging(file=tmp_path / "new.log")
    logging.getLogger("x").warning("once")
    assert (tmp_path / "old.log").read_text() == ""
    assert (tmp_path / "new.log").read_text().count("once") == 1


def test_talkative_libraries_are_heard_from_warning_on(tmp_path: Path) -> None:
    setup_logging(file=tmp_path / "x.log", level="DEBUG")
    logging.getLogger("httpx").info("chatter")
    logging.getLogger("httpx").warning("trouble")
    logging.getLogger("data").debug("detail")
    text = (tmp_path / "x.log").read_text()
    assert "chatter" not in text
    assert "trouble" in text
    assert "detail" in text
