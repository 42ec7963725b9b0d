"""`shelflife world generate`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.commands.session import HomeOption, JsonOption, SeedOption, open_session, verb

app = verb("The simulated shop, with its hidden truth.")


@app.callback()
def group() -> None:
    """The simulated shop, with its hidden truth."""


def _knob(help: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(help=help, show_default=False)
    return option


@app.command()
def generate(
    ctx: typer.Context,
    drift: Annotated[
        str, typer.Option(help="Preset of all drift: none, mild or strong; each knob overrides it.")
    ] = "none",
    scale: Annotated[float | None, _knob("1 is 10,000 items and 6,000 users (1).")] = None,
    days: Annotated[int | None, _knob("Days of history (14).")] = None,
    activity: Annotated[float | None, _knob("Share of the users who are active in a day (0.05).")] = None,
    taste_size: Annotated[float | None, _knob("Spread of users' lasting hidden tastes.")] = None,
    quality_size: Annotated[float | None, _knob("Spread of items' hidden quality.")] = None,
    random_slots: Annotated[int | None, _knob("Randomised slots on a page of the logging policy.")] = None,
    explore_pool: Annotated[int | None, _knob("Candidates among which such a slot chooses.")] = None,
    shuffle_clicks: Annotated[bool | None, _knob("Placebo: clicks tell nothing.")] = None,
    value_drift: Annotated[float | None, _knob("Drift of what all shoppers value.")] = None,
    value_half_life_d: Annotated[float | None, _knob("Its half-life in days.")] = None,
    taste_drift: Annotated[float | None, _knob("Drift of single users' tastes.")] = None,
    taste_half_life_d: Annotated[float | None, _knob("Its half-life in days.")] = None,
    churn_per_day: Annotated[
        float | None, _knob("Share of the items that die and are born in a day.")
    ] = None,
    price_changes_per_day: Annotated[float | None, _knob("Share of the items repriced in a day.")] = None,
    new_categories: Annotated[int | None, _knob("Categories that open later.")] = None,
    category_every_d: Annotated[float | None, _knob("Days between openings.")] = None,
    new_words: Annotated[float | None, _knob("New words a day.")] = None,
    season: Annotated[float | None, _knob("Swing of the items' season.")] = None,
    season_period_d: Annotated[float | None, _knob("Days of a season's round.")] = None,
    flash_sales: Annotated[float | None, _knob("Share of the items in a sale of hours, a day.")] = None,
    abrupt_shift_day: Annotated[int | None, _knob("Day on which values jump; -1 is never.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another world of this home.")] = False,
    home: HomeOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Generate a catalogue, shoppers and segments of history; deterministic per seed. Does not ingest."""
    knobs = {
        k: v for k, v in locals().items() if k not in ("ctx", "drift", "force", "home", "seed", "as_json")
    }
    from data.sources import fashion_mnist
    from data.world.config import world_config
    from data.world.history import generate as generate_world
    from infra.clock import ScaledClock, wall_us

    session = open_session(ctx, home=home, seed=seed, as_json=as_json)
    config = world_config(drift, seed=session.settings.seed, **knobs)
    cache = session.settings.cache
    with session.progress("world generate") as say:
        labels = fashion_mnist.load(cache)[1] if fashion_mnist.is_cached(cache) else None
        if labels is None:
            say("photos are not fetched, items refer to synthetic ones; `shelflife data fetch` gets them")
        report = generate_world(
            config,
            session.settings.layout,
            labels=labels,
            force=force,
            progress=lambda day, days: say(f"day {day} of {days}"),
        )
    # From here on the shop lives on from the end of its history, as fast as the wall.
    ScaledClock(report.end_us, wall_us(), 1.0).save(session.settings.layout.clock)
    session.emit(report)
