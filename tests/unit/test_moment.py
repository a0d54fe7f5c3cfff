"""What a person may write for a moment, and what it means in zones that change their clocks."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_ops.errors import UsageError
from portfolio_ops.moment import describe_moment, exact, parse_moment

NOW = datetime(2025, 10, 14, 12, 30, 0, 250_000, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [
    BERLIN,
    UTC,
    ZoneInfo("America/New_York"),
    ZoneInfo("Asia/Kathmandu"),
    ZoneInfo("Asia/Beirut"),  # changes at midnight
    ZoneInfo("Australia/Lord_Howe"),  # by half an hour
    ZoneInfo("Africa/Casablanca"),  # twice a year more
]

NO_TIMES = [
    "",
    " ",
    "noon",
    "yesterday",
    "tomorrow 04:00",
    "ago",
    "2h 3",
    "2 h ago",
    "0s ago",
    "200000d ago",
    "20251014",
    "2025-02-30",
    "2025-10-14 25:00",
    "2025-10-14 4:00",
    "14.10.2025",
    "2025-W42-2",
    "2025-10-14T12:30:60Z",
    "0001-01-01T00:00:00+12:00",
    "9999-12-31T23:59:59-12:00",
    "@",
    "@-1",
    "@999999999999",
    "@1e9",
    "2025-10-14T",
    "2025-10-14 12:30:00,5",
    "٢٠٢٥-10-14",
    "2025-10-14Z",
    "yesterday 04:00Z",
    "2025-10-14T12:30:00+0200",
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", "2025-10-14T12:30:00.250000Z"),
        ("2025-10-14T12:30:00Z", "2025-10-14T12:30:00Z"),
        ("2025-10-14t12:30:00z", "2025-10-14T12:30:00Z"),
        ("2025-10-14T12:30:00.123456Z", "2025-10-14T12:30:00.123456Z"),
        ("2025-10-14 12:30+05:45", "2025-10-14T06:45:00Z"),
        ("2025-10-14T12:30:00-00:30", "2025-10-14T13:00:00Z"),
        ("2025-10-14", "2025-10-13T22:00:00Z"),
        (" 2025-10-14 04:00 ", "2025-10-14T02:00:00Z"),
        ("2025-10-14T04:00:01", "2025-10-14T02:00:01Z"),
        ("2025-12-14 04:00", "2025-12-14T03:00:00Z"),
        ("today 04:00", "2025-10-14T02:00:00Z"),
        ("yesterday 04:00:30", "2025-10-13T02:00:30Z"),
        ("2h ago", "2025-10-14T10:30:00.250000Z"),
        ("90m", "2025-10-14T11:00:00.250000Z"),
        ("3d 2h ago", "2025-10-11T10:30:00.250000Z"),
        ("@1760445000", "2025-10-14T12:30:00Z"),
        ("@0", "1970-01-01T00:00:00Z"),
    ],
)
def test_what_it_means(text: str, expected: str) -> None:
    found = parse_moment(text, NOW, BERLIN)
    assert exact(found) == expected
    assert found.tzinfo is UTC


def test_yesterday_is_that_of_the_local_clock() -> None:
    late = datetime(2025, 10, 14, 23, 30, tzinfo=UTC)
    assert exact(parse_moment("yesterday 04:00", late, BERLIN)) == "2025-10-14T02:00:00Z"
    assert exact(parse_moment("today 04:00", late, UTC)) == "2025-10-14T04:00:00Z"


@pytest.mark.parametrize(
    "text",
    NO_TIMES,
)
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError, match="is no time") as caught:
        parse_moment(text, NOW, BERLIN)
    assert "yesterday 04:00" in caught.value.suggestion


def test_an_hour_that_comes_twice_and_one_that_does_not_come() -> None:
    with pytest.raises(UsageError, match="came twice") as caught:
        parse_moment("2025-10-26 02:30", NOW, BERLIN)
    for offset in ("+02:00", "+01:00"):
        assert f"2025-10-26 02:30:00{offset}" in caught.value.message
        assert f"2025-10-26 02:30:00{offset}" in caught.value.suggestion
    with pytest.raises(UsageError, match="left out") as caught:
        parse_moment("2025-03-30 02:30", NOW, BERLIN)
    assert "2025-03-30 01:30:00+01:00" in caught.value.suggestion
    assert "2025-03-30 03:30:00+02:00" in caught.value.suggestion
    with pytest.raises(UsageError, match="left out"):
        parse_moment("yesterday 02:30", datetime(2025, 3, 31, 12, tzinfo=UTC), BERLIN)
    with pytest.raises(UsageError, match="left out"):
        parse_moment("2022-03-27", NOW, ZoneInfo("Asia/Beirut"))


@given(
    st.sampled_from(ZONES),
    st.datetimes(datetime(1990, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_what_the_clock_shows_leads_back_or_is_refused(zone: ZoneInfo, moment: datetime) -> None:
    shown = moment.astimezone(zone).replace(tzinfo=None)
    twice = {shown.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    if len(twice) == 1:
        assert parse_moment(str(shown), NOW, zone) == moment
    else:
        with pytest.raises(UsageError, match="came twice"):
            parse_moment(str(shown), NOW, zone)


@given(st.sampled_from(ZONES), st.integers(0, 60 * 24 * 366 * 10))
def test_a_time_that_is_understood_is_what_the_clock_shows_then(zone: ZoneInfo, minutes: int) -> None:
    shown = datetime(2020, 1, 1) + timedelta(minutes=minutes)  # noqa: DTZ001  (a clock without a zone is the point)
    try:
        found = parse_moment(f"{shown:%Y-%m-%d %H:%M}", NOW, zone)
    except UsageError as error:
        for offered in error.suggestion.split("'")[1::2]:
            parse_moment(offered, NOW, zone)
        return
    assert found.astimezone(zone).replace(tzinfo=None) == shown


@given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_what_is_echoed_can_be_typed_again(moment: datetime) -> None:
    assert parse_moment(exact(moment), NOW) == moment
    local, _, utc = describe_moment(moment).partition(" (")
    assert parse_moment(local, NOW, timezone(timedelta(hours=9))) == moment
    assert parse_moment(utc.rstrip(")"), NOW) == moment
