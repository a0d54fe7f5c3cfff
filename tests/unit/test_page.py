"""The HTML page: it stands for itself, says what it was given and nothing else, and its picture is in its frame."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from portfolio_ops.cli.page import Lane, heading, items, page, table, timeline, verdict

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
HOSTILE = "<script>alert('é')</script>\x1b[2J & \"more\""


class Reader(HTMLParser):
    """Checks that what is opened is closed, and collects what is said."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.said: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not {"src", "href", "style"} & {name for name, _ in attrs}
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def test_what_is_said_is_text() -> None:
    text = page(
        HOSTILE,
        [
            heading(HOSTILE),
            verdict(HOSTILE, well=False),
            items([HOSTILE]),
            table(["A", HOSTILE], [[HOSTILE, "b"]]),
            timeline([Lane(HOSTILE, ((NOW, NOW),))], NOW),
        ],
    )
    read = Reader(text)
    assert "script" not in read.tags
    assert text.isascii()
    shown = "<script>alert('é')</script>\\u001b[2J & \"more\""
    assert sum(shown in each for each in read.said) >= 6
    assert "http" not in text


def bars(picture: str) -> list[tuple[float, float]]:
    return [(float(x), float(width)) for x, width in re.findall(r'<rect \S+ x="(.*?)" y=".*?" width="(.*?)"', picture)]


def test_a_picture_is_in_its_frame_and_in_order() -> None:
    spans = tuple((NOW - timedelta(days=day), NOW - timedelta(days=day - 1)) for day in (30, 20, 10))
    marks = ((NOW - timedelta(days=15), NOW - timedelta(days=15)), (NOW + timedelta(days=1), NOW + timedelta(days=1)))
    picture = timeline([Lane("spans", spans), Lane("marks", marks, "mark")], NOW)
    Reader(picture)
    found = bars(picture)
    assert len(found) == 5
    assert all(x >= 110 and x + width <= 1000.05 for x, width in found)
    first, second, third, mark, future = found
    assert first[0] == 110
    assert first[0] < second[0] < mark[0] < third[0] < future[0]
    assert abs(first[1] - 890 / 30) < 0.1
    assert 3 <= picture.count("<line") <= 11


def test_an_hour_has_a_beginning_too() -> None:
    picture = timeline([Lane("marks", ((NOW, NOW),))], NOW)
    assert picture.count("<line") == 1


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The local clock is New York's."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("new_york")
@pytest.mark.parametrize(
    ("first", "now"),
    [
        (datetime(2026, 10, 30, 4, tzinfo=UTC), datetime(2026, 11, 3, 5, tzinfo=UTC)),  # summer time ends between
        (datetime(2026, 3, 6, 5, tzinfo=UTC), datetime(2026, 3, 10, 4, tzinfo=UTC)),  # and begins
    ],
)
def test_midnights_are_the_local_clocks_across_a_change_of_it(first: datetime, now: datetime) -> None:
    picture = timeline([Lane("spans", ((first, now),))], now)
    told = re.findall(r'<text x="(\S+)" y="\d+">\d\d \w+ (\d\d:\d\d)</text>', picture)
    assert [label for _, label in told] == ["00:00"] * 5
    assert (told[0][0], told[-1][0]) == ("110.0", "1000.0")


def test_nothing_is_no_picture() -> None:
    assert timeline([Lane("spans", ())], NOW) == ""
