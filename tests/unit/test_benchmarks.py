"""What benchmarks make of their figures: verdicts, plots, and a page that shows what was measured and nothing else."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import page, report, results
from benchmarks.__main__ import NAMES, benchmark
from benchmarks.bench import timed
from benchmarks.results import Run
from benchmarks.rows import MET, MISSED, NO_AIM, Aim, Curve, Figure, Line, Measured, Row, number
from benchmarks.svg import linear_ticks, log_ticks, plot
from benchmarks.works import PROMISED, SNAPSHOT

SVG = "{http://www.w3.org/2000/svg}"
HALF = Aim("at most half", 0.5)


def row(ours: list[float], theirs: list[float] | None, aim: Aim | None, who: str = "theirs") -> Row:
    peer = None if theirs is None else Figure.of(who, theirs)
    return Row(SNAPSHOT, "time", "s", Figure.of("ours", ours), peer, aim)


def parsed(text: str) -> ET.Element:
    return ET.fromstring(text)  # noqa: S314  (our own)


CURVE = Curve(
    "grows",
    "Time & size",
    "MB",
    "seconds",
    (
        Line.of("ours", {100: [1.0, 1.2, 0.9], 10: [0.1, 0.1, 0.1]}),
        Line.of("<theirs>", {10: [0.5], 100: [9.0]}),
    ),
)
RUN = Run(
    "2026-01-02",
    "python -m benchmarks --only snapshot",
    quick=False,
    rounds=3,
    seconds=12.3,
    machine={"cores": "2"},
    peers={"zstd": "1.5.4"},
    measured=Measured((row([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], HALF),), (CURVE,)),
)


@pytest.mark.parametrize(
    ("ours", "theirs", "aim", "verdict"),
    [
        ([1, 2, 9], [4], HALF, MET),  # the median: 2 of 4
        ([2.1], [4], HALF, MISSED),
        ([2], [2], Aim("less", 1.0, below=True), MISSED),
        ([2], [2], Aim("no more", 1.0), MET),
        ([0, 0, 1], [500], Aim("none", 0, ratio=False, worst=True), MISSED),
        ([0, 0, 0], [500], Aim("none", 0, ratio=False, worst=True), MET),
        ([9.9], None, Aim("< 10", 10, ratio=False, below=True), MET),
        ([10], None, Aim("< 10", 10, ratio=False, below=True), MISSED),
        ([0], [0], HALF, MISSED),  # nothing can be said
        ([1], [2], None, NO_AIM),
    ],
)
def test_a_verdict_is_of_the_median_or_of_the_worst(
    ours: list[float], theirs: list[float] | None, aim: Aim | None, verdict: str
) -> None:
    assert row(ours, theirs, aim).verdict == verdict


def test_another_who_needs_less_is_better_and_we_ourselves_are_not() -> None:
    assert row([2], [1], None).peer_is_better
    assert not row([1], [2], None).peer_is_better
    assert not row([2], [1], None, who="ours, idle").peer_is_better


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.00123, "0.00123"), (0.25, "0.25"), (1, "1"), (9.876, "9.88"), (99.96, "100"), (12345.6, "12,346")],
)
def test_a_number_has_three_figures(value: float, text: str) -> None:
    assert number(value) == text


def test_ticks_are_round_and_span_the_values() -> None:
    assert log_ticks(0.3, 700) == [0.1, 1, 10, 100, 1000]
    assert log_ticks(30, 45) == [20, 50]
    assert log_ticks(1, 1) == [1, 2]
    assert linear_ticks(13) == [0, 5, 10, 15]
    assert linear_ticks(10) == [0, 2, 4, 6, 8, 10]
    assert linear_ticks(0) == [0, 1]


def test_a_plot_is_a_picture_with_a_title_that_reads_in_light_and_dark() -> None:
    text = plot(CURVE)
    root = parsed(text)
    assert root.findtext(f"{SVG}title") == "Time & size"
    assert "prefers-color-scheme: dark" in (root.findtext(f"{SVG}style") or "")
    assert {"<theirs>", "ours", "MB", "seconds", "10", "100"} <= {each.text for each in root.iter(f"{SVG}text")}


def test_a_plot_has_each_point_where_it_belongs() -> None:
    root = parsed(plot(CURVE))
    ours, theirs = (
        [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        for line in root.iter(f"{SVG}polyline")
    )
    assert [x for x, _ in ours] == [x for x, _ in theirs] == sorted(x for x, _ in ours)
    assert ours[0][1] > theirs[0][1] > ours[1][1] > theirs[1][1]  # 0.1, 0.5, 1.0 and 9.0; the page's top is 0
    # Each factor of ten is as high as any other.
    assert ours[0][1] - ours[1][1] == pytest.approx((theirs[0][1] - theirs[1][1]) / 1.2553, abs=0.2)


def test_of_nothing_at_all_there_is_a_plot_too() -> None:
    nothing = replace(CURVE, lines=(Line.of("ours", {10: [0.0]}),))
    assert parsed(plot(nothing)).findtext(f"{SVG}title")


def test_results_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.save({"snapshot": RUN}, NAMES, path)
    assert results.load(path) == {"snapshot": RUN}


def test_a_run_of_one_leaves_the_others_results_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    results.save({"status": RUN, "snapshot": RUN}, NAMES, path)
    other = replace(RUN, date="2026-01-03")
    results.save({**results.load(path), "status": other}, NAMES, path)
    assert results.load(path) == {"snapshot": RUN, "status": other}
    assert list(json.loads(path.read_text())) == ["snapshot", "status"]


def test_the_page_tells_what_was_missed_what_is_missing_and_who_is_better() -> None:
    slow = row([3.0], [2.0], HALF)
    text = page.page({"snapshot": replace(RUN, measured=Measured((slow, row([1.0], [4.0], HALF))))})
    assert "Of 2 aims 1 are met and 1 missed." in text
    assert f"- {SNAPSHOT}, time: ours 3 s, theirs 2 s (1.5). Aim: at most half." in text
    for work in PROMISED[1:]:
        assert f"Not measured: {work}." in text
    _, better = text.split("## Where a peer is better\n")
    assert better.startswith(f"\n- {SNAPSHOT}, time: ours 3 s, theirs 2 s (1.5).\n\n")
    assert "quick run" not in text


def test_without_results_there_is_a_page_too() -> None:
    assert page.page({}).endswith("Nothing has been measured yet.\n")


def test_the_page_of_a_quick_run_says_so() -> None:
    assert "**These figures are of a quick run" in page.page({"snapshot": replace(RUN, quick=True)})


def test_page_and_plots_are_those_of_the_results() -> None:
    assert not page.outdated(results.load(), page.DOCS), "run `make docs`"


def test_what_is_out_of_date_is_found(tmp_path: Path) -> None:
    wanted = page.files({"snapshot": RUN})
    (tmp_path / page.PLOTS).mkdir()
    for name, text in wanted.items():
        (tmp_path / name).write_text(text)
    assert not page.outdated({"snapshot": RUN}, tmp_path)
    (tmp_path / page.PLOTS / "grows.svg").write_text("another")
    (tmp_path / page.PLOTS / "nobody.svg").write_text("left over")
    changed = page.outdated({"snapshot": RUN}, tmp_path)
    assert changed == {"benchmarks/grows.svg": wanted["benchmarks/grows.svg"], "benchmarks/nobody.svg": None}


def test_the_terminal_shows_verdicts_and_curves() -> None:
    text = report.text(RUN.measured)
    assert "MET" in text
    assert "TIME & SIZE (seconds)" in text


def test_memory_is_that_of_the_command_and_not_of_who_measures_it() -> None:
    ours = bytearray(200_000_000)
    assert timed([sys.executable, "-c", "print(len(bytearray(50_000_000)))"]).megabytes > 50
    small = timed(["true"])
    assert small.megabytes < 50 < len(ours) / 1e6
    assert small.said == b""


def test_a_command_that_fails_ends_the_benchmark() -> None:
    assert timed(["false"], {1}).seconds > 0
    with pytest.raises(SystemExit, match="`false` failed with 1"):
        timed(["false"])


@pytest.mark.parametrize("name", NAMES)
def test_each_benchmark_says_what_it_measures_against(name: str) -> None:
    assert isinstance(benchmark(name).peers, tuple)
