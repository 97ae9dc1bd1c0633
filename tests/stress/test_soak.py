"""The soak test itself: it says when an account does not close, and how to do it again."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

import soak
from accounts import Ledger, Report, item_id

import segq


def test_a_round_is_what_follows_from_its_seed() -> None:
    drawn = [soak.Round.drawn(seed, 8, 32) for seed in range(200)]
    assert drawn == [soak.Round.drawn(seed, 8, 32) for seed in range(200)]
    assert {each.kind for each in drawn} == {"queue", "topic"}
    for each in drawn:
        readers = each.consumers * (3 if each.kind == "topic" else 1)
        assert 8 <= each.producers + readers <= 32, each
        assert each.producers >= 1
        assert each.consumers >= 1


def test_an_account_that_does_not_close_ends_it_with_the_seed_to_repeat_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def play(self: Any, place: Path, seconds: float, figures: Any) -> None:
        figures.rounds += 1
        assert self.seed != 12, "an item is missing"

    monkeypatch.setattr(soak.Round, "play", play)
    assert soak.soak(1, 10, (8, 32), 2) == 0
    assert "2 rounds" in capsys.readouterr().out
    assert soak.soak(1, 10, (8, 32), 5) == 1
    said = capsys.readouterr().out
    assert "--seed 12 --rounds 1 --processes 8..32" in said


def test_lost_and_invented_items_are_counted(tmp_path: Path) -> None:
    report = Report(tmp_path / "one.report")
    with segq.Queue(tmp_path / "queue") as q:
        for n in range(3):
            report.put(q, item_id("one", n))
        report.get(q)
        q.get_many(1)  # unreported, so it is missing
        report.say("got", item_id("two", 7))
        report.end()
    figures = soak.Figures()
    figures.add(Ledger([report.path]))
    assert (figures.deliveries, figures.lost, figures.invented) == (2, 2, 1)


@pytest.mark.torture
def test_a_round_of_everything_closes_its_account(capfd: pytest.CaptureFixture[str]) -> None:
    assert soak.soak(1, random.SystemRandom().randrange(1 << 30), (8, 10), 1) == 0
    assert "lost 0, invented 0" in capfd.readouterr().out
