"""Judging and promoting: against whom, while others promote and roll back, and what a bar holds back."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from flows.offline import crown
from flows.offline import promote as promotion
from flows.offline.crown import barred, promoting, reconcile, rollback
from flows.offline.gate import GateLimits, judge
from flows.offline.inputs import Inputs, load_inputs
from flows.offline.promote import promote
from infra.errors import DataError, EnvironmentError_
from infra.settings import Settings
from models.release import champion, load_release, release_folder
from tests.registry_fake import FakeRegistry
from tests.unit.flows.light_shop import Crash, Faulty, is_whole, next_release, steps_of

pytestmark = pytest.mark.slow  # stands on a trained release


@pytest.fixture(scope="module")
def inputs(first: Settings) -> Inputs:
    return load_inputs(first.layout, window_d=None)


def test_a_champion_that_cannot_be_read_does_not_stand_in_the_way(
    light: tuple[Settings, FakeRegistry], inputs: Inputs
) -> None:
    settings, registry = light
    made = next_release(settings)
    broken = is_whole(settings, registry)
    path = next((release_folder(settings.layout, broken) / "ranker").glob("*.txt"))
    path.unlink()
    for limits, reason in (
        (GateLimits(latency_us=0.0), "the ranker takes "),
        (GateLimits(size_mb=0.0, size_ratio=0.5), "the release has "),
    ):
        done = promote(settings, inputs=inputs, limits=limits)
        assert not done["promoted"]
        told, against = done["verdict"]["reasons"]
        assert told.startswith(f"the champion {broken} cannot be loaded (")
        assert str(path.name) in told
        assert against.startswith(reason)
        assert champion(settings.layout) == broken
    done = promote(settings, inputs=inputs)
    assert done["promoted"]
    (told,) = done["verdict"]["reasons"]
    assert told.startswith(f"the champion {broken} cannot be loaded (")
    assert told.endswith("compared with nothing; the absolute limits are kept")
    assert (done["verdict"]["champion"], done["verdict"]["compared_with"]) == (broken, None)
    assert done["verdict"]["difference"] is None
    assert is_whole(settings, registry) == made


def test_the_first_release_and_a_comparison_are_told_apart(
    light: tuple[Settings, FakeRegistry], inputs: Inputs
) -> None:
    settings, registry = light
    before = is_whole(settings, registry)
    live = load_release(settings.layout, before)
    (told,) = judge(inputs, live, None).reasons
    assert told == "the first release: there is no champion to compare with"
    next_release(settings)
    verdict = promote(settings, inputs=inputs)["verdict"]
    assert verdict["compared_with"] == before
    for name, least, ratio in (("latency_us", 2_000.0, 3.0), ("size_mb", 200.0, 3.0)):
        held = verdict[name]
        assert held["allowed"] == max(least, ratio * held["champion"]) >= held["challenger"] > 0


def held_up(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object], *, times: int = 1) -> list[Any]:
    """Something else is done while the gate judges, the first `times`; who was champion each time."""
    judged: list[Any] = []

    def slow(*what: Any, **limits: Any) -> Any:
        verdict = judge(*what, **limits)
        judged.append(verdict.champion)
        if len(judged) <= times:
            meanwhile()
        return verdict

    monkeypatch.setattr(promotion, "judge", slow)
    return judged


def test_a_rollback_need_not_wait_for_the_gate(
    light: tuple[Settings, FakeRegistry], inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, registry = light
    first = is_whole(settings, registry)
    second = next_release(settings)
    promote(settings, inputs=inputs)
    third = next_release(settings, 2)
    judged = held_up(monkeypatch, lambda: rollback(settings))
    done = promote(settings, inputs=inputs)
    assert judged == [second, first]  # judged again: against who is champion now
    assert done["promoted"]
    assert done["verdict"]["compared_with"] == first
    assert is_whole(settings, registry) == third
    assert set(barred(settings.layout)) == {second}
    assert rollback(settings) == {"release_id": first, "was": third}


def test_what_is_rolled_back_while_it_is_judged_stays_out(
    light: tuple[Settings, FakeRegistry], inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, registry = light
    first = is_whole(settings, registry)
    made = next_release(settings)

    def there_and_back() -> None:  # in the meantime another command promotes it, and a user takes it back
        with promoting(settings, "promote"):
            crown.crown(settings, registry, made, by="gate")
        rollback(settings)

    judged = held_up(monkeypatch, there_and_back)
    done = promote(settings, inputs=inputs)
    assert judged == [first]
    assert not done["promoted"]
    assert "it was rolled back on" in done["verdict"]["reasons"][0]
    assert is_whole(settings, registry) == first


def test_a_champion_that_never_stays_is_one_line(
    light: tuple[Settings, FakeRegistry], inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, registry = light
    first = is_whole(settings, registry)
    others = [next_release(settings, n) for n in (1, 2, 3)]
    made = next_release(settings, 4)
    upcoming = iter(others)

    def another() -> None:
        with promoting(settings, "promote"):
            crown.crown(settings, registry, next(upcoming), by="gate")

    judged = held_up(monkeypatch, another, times=3)
    with pytest.raises(
        EnvironmentError_, match=rf"changed 3 times while {made} was judged, .* to {others[2]}"
    ):
        promote(settings, inputs=inputs)
    assert judged == [first, *others[:2]]
    assert is_whole(settings, registry) == others[2]


def test_a_promotion_by_another_command_is_none_of_ours(
    light: tuple[Settings, FakeRegistry], inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, registry = light
    made = next_release(settings)

    def first_come() -> None:
        with promoting(settings, "promote"):
            crown.crown(settings, registry, made, by="hand")

    held_up(monkeypatch, first_come)
    done = promote(settings, inputs=inputs)
    assert (done["champion"], done["promoted"], done["verdict"]) == (made, False, None)
    assert is_whole(settings, registry) == made


def test_a_release_that_is_removed_while_it_is_judged_is_one_line(
    light: tuple[Settings, FakeRegistry], inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, registry = light
    before = is_whole(settings, registry)
    made = next_release(settings)
    held_up(monkeypatch, lambda: shutil.rmtree(release_folder(settings.layout, made)))
    with pytest.raises(DataError, match=f"no release '{made}'; published are: {before}"):
        promote(settings, inputs=inputs)
    assert is_whole(settings, registry) == before


def test_a_bar_is_lifted_by_a_promotion_alone(light: tuple[Settings, FakeRegistry], inputs: Inputs) -> None:
    settings, registry = light
    first = is_whole(settings, registry)
    made = next_release(settings)
    promote(settings, inputs=inputs)
    rollback(settings)
    lean = GateLimits(size_mb=0.0, size_ratio=0.5)
    assert not promote(settings, release_id=made, inputs=inputs, limits=lean, by_hand=True)["promoted"]
    assert set(barred(settings.layout)) == {made}
    again = functools.partial(promote, settings, release_id=made, inputs=inputs, by_hand=True)
    steps = steps_of(settings, registry, again)
    assert barred(settings.layout) == {}
    for at in range(1, steps + 1):
        rollback(settings)
        assert is_whole(settings, registry) == first
        with pytest.MonkeyPatch.context() as patch:
            Faulty(patch, registry, at=at, error=Crash)
            with pytest.raises(Crash):
                again()
        with promoting(settings, "up"):
            now = reconcile(settings)
        assert (made in barred(settings.layout)) == (now == first)
        again()
        assert barred(settings.layout) == {}


def test_a_promotion_that_was_interrupted_counts_where_it_is_finished(
    light: tuple[Settings, FakeRegistry], inputs: Inputs
) -> None:
    settings, registry = light
    made = next_release(settings)
    with pytest.MonkeyPatch.context() as patch:
        Faulty(patch, registry, at=6, error=EnvironmentError_)
        with pytest.raises(
            EnvironmentError_, match=rf"the promotion of {made} is begun: the next .* finishes it"
        ):
            promote(settings, inputs=inputs)
    assert crown.intended(settings.layout) == made
    done = promote(settings, release_id=made, inputs=inputs)
    assert done["promoted"]
    assert done["verdict"]["challenger"] == made
    assert promote(settings, release_id=made, inputs=inputs)["promoted"] is False
