"""Small shops of the real simulator, to calibrate on beside the small worlds: all features, counters too.

Dearer than a small world and with no true curve, they show that what is found there is found in a panel
made as a study's is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from data.world.config import WorldConfig
from flows.studies.panels.panel import Panel
from flows.studies.panels.world import world_panel
from infra.settings import Settings

__all__ = ["ShopConfig", "shop_panel"]


@dataclass(frozen=True)
class ShopConfig:
    """A shop of 1,500 items and some 5,000 rows a day; `knobs` of `WorldConfig`, such as its drift."""

    seed: int = 7
    knobs: tuple[tuple[str, float], ...] = ()
    days: int = 26
    burn_in_d: float = 12.0
    window_d: float = 4.0
    slices: int = 8
    queries: int = 60


def shop_panel(config: ShopConfig) -> Panel:
    """The panel of a shop; nothing of it is kept."""
    world = WorldConfig(
        scale=0.15,
        days=config.days,
        seed=config.seed,
        activity=0.25,
        **dict(config.knobs),  # type: ignore[arg-type]
    )
    with TemporaryDirectory(prefix="shelflife-calibration-") as folder:
        home = Path(folder)
        return world_panel(
            Settings(home=home, cache=home / "cache", seed=config.seed),
            world,
            burn_in_d=config.burn_in_d,
            window_d=config.window_d,
            slices=config.slices,
            queries=config.queries,
        )
