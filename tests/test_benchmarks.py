"""The benchmark harness: it runs end to end, its accounts are honest, its JSON has the promised shape.

How fast anything is, is never asserted here.
"""

from __future__ import annotations

import json
import os
import signal
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

pytest.importorskip("rich", reason="the benchmarks draw their tables with rich")

from benchmarks import account, comparison, document, headline, pairs, payload, plot, sample, target
from benchmarks.__main__ import main
from benchmarks.adapters import Settings, UnavailableError, adapter_named
from benchmarks.crew import CONTEXT, Crew, StartLine, WorkerError
from benchmarks.payload import STOP, BytesPayload, DictPayload
from benchmarks.programme import QUICK, WORKLOADS
from benchmarks.report import closing, detail
from benchmarks.runner import Outcome, Runner
from benchmarks.scale import SCALES
from benchmarks.target import Target
from benchmarks.workloads import Arena, Entrant, Repetition, fairness
from benchmarks.workloads.transfer import Transfer

TINY = SCALES["tiny"]

ENTRANTS = {
    "single": 2,
    "peers-batch": 1,
    "large": 2,
    "latency": 1,
    "fairness": 1,
    "burst": 1,
    "backlog": 1,
    "memory": 1,
    "startup": 1,
    "fan-out": 1,
    "idle": 1,
    "alone": 1,
    "rocksq-small": 1,
    "persist-queue-write-read": 1,
    "watched": 2,
}
"""A workload of each kind, and how many of its entrants take part here; all of all are run by the external tests."""
KINDS: dict[str, Any] = {name: replace(WORKLOADS[name], entrants=WORKLOADS[name].entrants[:n]) for name, n in ENTRANTS.items()}


def _segq_is_here() -> bool:
    try:
        adapter_named("segq")
    except UnavailableError:
        return False
    return True


@pytest.fixture(scope="session")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of one tiny run of a workload of each kind, which parallel test processes share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.__main__.WORKLOADS", KINDS)
        return _tiny_run(tmp_path_factory, "kinds")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The same of the whole programme."""
    return _tiny_run(tmp_path_factory, "whole")


def _tiny_run(tmp_path_factory: pytest.TempPathFactory, name: str) -> dict[str, Any]:
    # Below xdist each process has a directory of its own beside those of the others.
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    ground = shared / f"benchmarks-{name}"
    path = ground / "deep" / "run.json"
    with FileLock(shared / f"{ground.name}.lock"):
        if not path.exists():
            ground.mkdir()
            main(["--scale", "tiny", "--dir", str(ground), "--json", str(path)])
            # Every repetition has taken its directory away with it.
            assert [entry.name for entry in ground.iterdir()] == ["deep"]
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


@pytest.mark.external
@pytest.mark.parametrize("name", WORKLOADS)
def test_every_workload_closes_its_account(whole: dict[str, Any], name: str) -> None:
    for label, entrant in whole["workloads"][name]["entrants"].items():
        assert entrant["failed"] is None, f"{label}: {entrant['failed']}"
        assert bool(entrant["skipped"]) != bool(entrant["repetitions"])


def test_the_kinds_are_all_there_are() -> None:
    assert {type(each) for each in KINDS.values()} == {type(each) for each in WORKLOADS.values()}


def test_a_quick_run_does_workloads_that_there_are() -> None:
    assert set(QUICK) < set(WORKLOADS)


def test_a_run_records_the_machine_the_scale_and_every_workload(record: dict[str, Any]) -> None:
    assert record["format"] == 1
    failures = [each["failed"] for workload in record["workloads"].values() for each in workload["entrants"].values()]
    assert not any(failures), failures
    assert record["failed"] is False
    assert record["scale"]["name"] == "tiny"
    assert record["machine"]["cores"] >= 1
    assert list(record["workloads"]) == list(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_every_entrant_has_raw_repetitions_with_a_summary_of_them(record: dict[str, Any], name: str) -> None:
    workload = KINDS[name]
    entrants = record["workloads"][name]["entrants"]
    assert list(entrants) == [entrant.label for entrant in workload.entrants]
    for label, entrant in entrants.items():
        if entrant["skipped"]:
            assert "not installed" in entrant["skipped"] or (label.startswith("segq") and not _segq_is_here())
            continue
        assert entrant["survives"]
        (repetition,) = entrant["repetitions"]
        for metric, value in repetition["metrics"].items():
            assert entrant["summary"][metric] == {"median": value, "low": value, "high": value, "repetitions": 1}


@pytest.mark.parametrize("name", [name for name, each in KINDS.items() if isinstance(each, Transfer)])
def test_every_item_of_a_transfer_is_accounted_for(record: dict[str, Any], name: str) -> None:
    for entrant in record["workloads"][name]["entrants"].values():
        for repetition in entrant["repetitions"]:
            counts = repetition["account"]
            assert counts["put"] > 0
            if not entrant["mode"].startswith("write only"):
                assert counts["got"] == counts["put"]
                assert not any(counts[kind] for kind in ("missing", "twice", "invented", "disordered"))


@pytest.mark.parametrize("name", KINDS)
def test_every_target_carries_its_bound_and_a_verdict_if_it_could_be_measured(record: dict[str, Any], name: str) -> None:
    targets = record["workloads"][name]["targets"]
    assert len(targets) == len(WORKLOADS[name].targets)
    for each in targets:
        assert (each["at_least"] is None) != (each["at_most"] is None)
        if each["value"] is None:
            assert each["met"] is each["missed_by"] is None
        else:
            assert each["met"] == (each["missed_by"] == 0)


def test_only_runs_the_workloads_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.json"
    status = main(
        ["--scale", "tiny", "--only", "persist-queue-write", "--repetitions", "2", "--dir", str(tmp_path), "--json", str(path)]
    )
    assert status == 0
    workloads = json.loads(path.read_text())["workloads"]
    assert list(workloads) == ["persist-queue-write"]
    assert len(workloads["persist-queue-write"]["entrants"]["segq"]["repetitions"]) == 2
    assert "Targets" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--only", "nothing"], ["--repetitions", "0"], ["--dir", "/nowhere"], ["--scale", "huge"]]
)
def test_nonsense_on_the_command_line_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        main(arguments)
    assert refusal.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_list_names_the_workloads(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in WORKLOADS)


def _taken(*sequences: int, producer: int = 0) -> dict[int, array[int]]:
    return {producer: array("I", sequences)}


@pytest.mark.parametrize(
    ("harvests", "fault"),
    [
        ([_taken(0, 1)], "missing"),
        ([_taken(0, 1, 2, 2)], "twice"),
        ([_taken(0, 1), _taken(1, 2)], "twice"),
        ([_taken(0, 1, 2, 3)], "invented"),
        ([_taken(0, 1, 2) | _taken(0, producer=7)], "invented"),
        ([_taken(0, 2, 1)], "disordered"),
    ],
)
def test_an_account_that_does_not_close_is_refused(harvests: list[account.Harvest], fault: str) -> None:
    drawn_up = account.settle({0: 3}, harvests)
    assert getattr(drawn_up, fault) > 0
    with pytest.raises(account.AccountError, match=fault):
        drawn_up.demand()


def test_an_account_closes_when_consumers_share_everything_between_them() -> None:
    drawn_up = account.settle({0: 2, 1: 2}, [_taken(1) | _taken(0, producer=1), _taken(0) | _taken(1, producer=1)])
    assert drawn_up.demand().got == 4


def test_an_order_that_is_not_promised_is_not_demanded() -> None:
    assert account.settle({0: 3}, [_taken(0, 2, 1)], ordered=False).demand().got == 3


@pytest.mark.parametrize("kind", [BytesPayload(16), BytesPayload(24), BytesPayload(100), BytesPayload(1 << 16), DictPayload()])
def test_an_item_says_whose_it_is(kind: payload.Payload) -> None:
    items = kind.make(3, 10, 5)
    assert [kind.identify(item) for item in items] == [(3, sequence) for sequence in range(10, 15)]


@pytest.mark.parametrize("damaged", [b"", STOP, b"x" * 100, BytesPayload(101).make(0, 0, 1)[0], "text", None])
def test_an_item_that_is_not_as_it_was_made_is_refused(damaged: object) -> None:
    with pytest.raises(ValueError, match="not an item"):
        BytesPayload(100).identify(damaged)


class _Forgetful:
    """A contestant that drops one item, as a broken queue would."""

    name = "forgetful"
    version = "0"
    survives = "nothing"

    def prepare(self, *arguments: Any) -> Any:
        return _ForgetfulTicket(adapter_named("multiprocessing.Queue").prepare(*arguments))


class _ForgetfulTicket:
    def __init__(self, ticket: Any) -> None:
        self.ticket = ticket

    def open(self) -> Any:
        handle = self.ticket.open()
        forgotten = BytesPayload(100).make(0, 7, 1)[0]
        return replace(handle, put=lambda item: None if item == forgotten else handle.put(item))


def test_a_contestant_that_loses_an_item_fails_and_the_others_still_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.workloads import contract

    monkeypatch.setattr(contract, "adapter_named", lambda name: _Forgetful() if name == "forgetful" else adapter_named(name))
    monkeypatch.setattr("benchmarks.runner.adapter_named", contract.adapter_named)
    workload = Transfer(
        name="single",
        title="with a loser",
        payload=BytesPayload(100),
        entrants=(
            Entrant(label="forgetful", adapter="forgetful"),
            Entrant(label="multiprocessing.Queue", adapter="multiprocessing.Queue"),
        ),
        targets=(Target(metric="rate", of="forgetful", against="multiprocessing.Queue", at_least=1),),
        items=lambda scale: scale.single,
    )
    outcome = Runner(scale=TINY, directory=tmp_path).run(workload, lambda _what: None)
    assert "'missing': 1" in outcome.failed["forgetful"]
    assert len(outcome.repetitions["multiprocessing.Queue"]) == 1
    assert outcome.verdicts[0][1] is None


def _raise(_line: StartLine) -> None:
    raise ArithmeticError("on purpose")


def _cross(line: StartLine) -> int:
    return line.cross()


def _die(_line: StartLine) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_raises_is_reported_with_its_traceback_and_not_its_companions() -> None:
    with Crew(2, patience=30) as crew:
        waiting = crew.start("waiting", _cross)
        crew.start("raising", _raise)
        with pytest.raises(WorkerError, match=r"(?s)raising.*_raise.*on purpose"):
            crew.result(waiting)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX only")
def test_a_worker_that_dies_is_reported() -> None:
    with Crew(1, patience=30) as crew, pytest.raises(WorkerError, match="died with exit code -9"):
        crew.result(crew.start("dying", _die))


def test_a_crew_that_is_stuck_is_ended_when_patience_is() -> None:
    with Crew(3, patience=1) as crew:
        worker = crew.start("waiting", _cross)
        with pytest.raises(WorkerError):
            crew.result(worker)
        process = worker.process
    with pytest.raises(ValueError, match="closed"):
        process.is_alive()


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100)])
def test_a_percentile_is_the_nearest_rank(share: float, expected: int) -> None:
    assert sample.percentile(range(1, 101), share) == expected


def _summary(value: float) -> sample.Summary:
    return sample.Summary.of([value])


@pytest.mark.parametrize(
    ("bound", "own", "other", "met", "text"),
    [
        ({"at_least": 2.5}, 300, 100, True, "met"),
        ({"at_least": 2.5}, 200, 100, False, "missed by 20%"),
        ({"at_most": 1.2}, 110, 100, True, "met"),
        ({"at_most": 1.2}, 180, 100, False, "missed by 50%"),
    ],
)
def test_a_target_is_judged_by_the_ratio_of_medians(
    bound: dict[str, float], own: float, other: float, met: bool, text: str
) -> None:
    bounded = Target(metric="rate", of="a", against="b", **bound)
    verdict = bounded.judge({"a": {"rate": _summary(own)}, "b": {"rate": _summary(other)}})
    assert verdict is not None
    assert (verdict.met, verdict.text()) == (met, text)


def test_a_target_without_both_sides_has_no_verdict() -> None:
    bounded = Target(metric="rate", of="a", against="b", at_least=1)
    assert bounded.judge({"a": {"rate": _summary(1)}}) is None
    assert bounded.judge({"a": {"rate": _summary(1)}, "b": {"rate": _summary(0)}}) is None


def test_a_target_has_one_bound() -> None:
    with pytest.raises(ValueError, match="a least or a most"):
        Target(metric="rate", of="a")


def test_tables_can_be_drawn_of_failures_and_of_nothing() -> None:
    outcome = Outcome(workload=WORKLOADS["single"], failed={"segq": "[boom]"}, skipped={"multiprocessing.Queue": "x"})
    assert detail(outcome).row_count == 2
    assert closing([outcome]).row_count == 1
    outcome.repetitions["segq"] = [Repetition(metrics={"rate": 1.0}), Repetition(metrics={"rate": 3.0})]
    assert outcome.summaries["segq"]["rate"].median == 2.0
    assert detail(outcome).row_count == 2


def test_a_bounded_queue_can_be_asked_for(tmp_path: Path) -> None:
    ticket = adapter_named("multiprocessing.Queue").prepare(CONTEXT, tmp_path, Settings(capacity=1))
    handle = ticket.open()
    handle.put(b"a")
    handle.close()


def test_a_workload_runs_in_an_arena_of_its_own(tmp_path: Path) -> None:
    entrant = next(each for each in WORKLOADS["single"].entrants if each.adapter == "multiprocessing.Queue")
    repetition = WORKLOADS["single"].run(entrant, Arena(directory=tmp_path, scale=TINY))
    assert repetition.metrics["rate"] > 0
    assert target.Verdict(target=Target(metric="rate", of="a", at_least=1), value=2).met


# --- looking at saved runs --------------------------------------------------------------------------------------------


def run_of(rates: tuple[float, float, float], p50s: tuple[float, float, float]) -> dict[str, Any]:
    def summary(of: tuple[float, float, float]) -> dict[str, float]:
        return {"low": of[0], "median": of[1], "high": of[2], "repetitions": 3}

    entrants = {"segq": {"summary": {"rate": summary(rates), "p50": summary(p50s), "unknown": summary(rates)}}}
    return {"format": 1, "workloads": {"single": {"title": "t", "entrants": entrants}}}


def test_a_comparison_says_better_or_worse_only_where_the_ranges_lie_apart() -> None:
    before, after = run_of((90, 100, 110), (5, 6, 7)), run_of((120, 130, 140), (8, 9, 10))
    found = {name: comparison.judgement(name, old, new).plain for _, _, name, old, new in comparison.pairs(before, after)}
    assert found == {"rate": "better", "p50": "worse"}
    near = run_of((100, 120, 140), (2, 3, 5))
    assert {comparison.judgement(name, old, new).plain for _, _, name, old, new in comparison.pairs(before, near)} == {""}


def test_two_saved_runs_are_compared_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, record in (("a", run_of((90, 100, 110), (5, 6, 7))), ("b", run_of((190, 200, 210), (5, 6, 7)))):
        (tmp_path / name).write_text(json.dumps(record))
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "2.00" in capsys.readouterr().out
    (tmp_path / "b").write_text("{}")
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert ended.value.code == 2
    assert "not a saved run" in capsys.readouterr().err


def test_a_picture_is_drawn_of_each_workload_and_of_all_targets(record: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures are drawn with matplotlib")
    drawn = plot.draw(record, tmp_path)
    assert [path.stem for path in drawn] == [*KINDS, plot.TARGETS]
    assert all(path.read_text().count("<svg") == 1 for path in drawn)


@pytest.mark.parametrize(
    ("label", "survives", "expected"),
    [
        ("segq, acked", "every item whose put returned", plot.OURS),
        ("faster-fifo", "nothing: items are in memory", plot.LOSES),
        ("turbo-queue", "batches that were full; not the one being filled", plot.LOSES),
        ("persist-queue, file, bulk", "what was committed, in one process", plot.LOSES),
        ("litequeue", "every item whose put returned", plot.KEEPS),
        ("plain write", "bytes, but not a queue", plot.NO_QUEUE),
    ],
)
def test_a_fast_loser_of_items_is_shown_as_one(label: str, survives: str, expected: plot.Promise) -> None:
    assert plot.promise(label, survives) is expected


def test_the_page_is_made_of_a_run_and_of_what_people_wrote(record: dict[str, Any], tmp_path: Path) -> None:
    sections = tmp_path / "sections"
    sections.mkdir()
    (sections / "00-before.md").write_text("Before all.\n")
    (sections / "10-behind.md").write_text("## Behind\n")
    run, page = tmp_path / "run.json", tmp_path / "page.md"
    run.write_text(json.dumps(record))
    assert main(["document", str(run), "--to", str(page), "--sections", str(sections)]) == 0
    text = page.read_text()
    places = [
        text.index(words) for words in ("# Benchmarks", "Before all.", "## Targets", "### single", "### idle", "## Behind")
    ]
    assert places == sorted(places)
    assert all(f"### {name}\n" in text for name in KINDS)
    assert "--scale tiny" in text
    assert str(tmp_path) not in text, "where it was measured is nobody's business"
    linked = [part.partition(")")[0] for part in text.split("](")[1:]]
    assert all((tmp_path / link).exists() for link in linked)


def test_the_figures_of_a_readme_are_made_anew_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def entrant(**medians: float) -> dict[str, Any]:
        return {"summary": {name: {"median": value} for name, value in medians.items()}}

    workloads = {
        "single": {"entrants": {"segq": entrant(rate=857_889.4), "multiprocessing.Queue": entrant(rate=248_377.0)}},
        "latency": {"entrants": {"segq": entrant(p50=57.04, p99=140.1), "multiprocessing.Queue": entrant(p50=63.4, p99=143.8)}},
        "acked": {"entrants": {"segq": entrant()}},
    }
    made = headline.rewritten(f"before\n{headline.BEGIN}\nold\n{headline.END}\nbehind\n", {"workloads": workloads})
    lines = made.splitlines()
    assert (lines[0], lines[-1], "old" in lines) == ("before", "behind", False)
    assert "| single `put` to single `get`, 1 x 1 | 858,000 /s | 248,000 /s | 3.45 |" in lines
    assert any(line.endswith("| 57 and 140 µs | 63.4 and 144 µs | 0.90 and 0.97 |") for line in lines)
    assert not any("ack" in line for line in lines), "what was not measured is not said"
    assert headline.rewritten(made, {"workloads": workloads}) == made
    with pytest.raises(ValueError, match="no place"):
        headline.rewritten("a README without figures", {"workloads": workloads})


def test_the_readme_has_a_place_for_figures() -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text()
    assert text.count(headline.BEGIN) == text.count(headline.END) == 1


def test_of_two_runs_the_later_one_has_the_word(record: dict[str, Any]) -> None:
    later = {**record, "workloads": {"idle": {**record["workloads"]["idle"], "title": "once more"}}}
    together = document.merged([record, later])["workloads"]
    assert list(together) == [name for name in WORKLOADS if name in KINDS]
    assert together["idle"]["title"] == "once more"
    assert together["single"] == record["workloads"]["single"]


# --- the mix of tasks --------------------------------------------------------------------------------------------------


def test_the_tasks_are_the_same_for_all_and_leave_room_for_a_target() -> None:
    tasks = fairness.lengths(200, 1)
    assert tasks == fairness.lengths(200, 1)
    assert len(tasks) == 200
    assert len(set(tasks)) == len(fairness.MIX)
    least = fairness.ideal(tasks, fairness.WORKERS)
    assert least == sum(tasks) / fairness.WORKERS
    assert least <= fairness.in_turn(tasks, fairness.WORKERS) < 1.05 * least


def test_a_task_longer_than_a_fair_share_is_the_ideal() -> None:
    assert fairness.ideal([9, 1, 1], 4) == fairness.in_turn([9, 1, 1], 4) == 9


@pytest.mark.torture
def test_what_watching_costs_is_measured_in_pairs(tmp_path: Path) -> None:
    ratios = pairs.measure(str(tmp_path / "queue"), 2, 1.0)
    assert [len(found) for found in ratios] == [2, 2]
    assert all(0 < ratio < 100 for found in ratios for ratio in found)
