"""What `systemctl show` says of timers, as seen on systemd 252 and 257."""

from datetime import UTC, datetime

from portfolio_ops.host.timers import parse

SHOWN = """NextElapseUSecRealtime=Tue 2026-11-24 01:03:46 UTC
LastTriggerUSec=Tue 2026-11-24 00:02:51 UTC
Result=success
Id=portfolio-backup-daily@shop.timer
LoadState=loaded
ActiveState=active

NextElapseUSecRealtime=
LastTriggerUSec=n/a
Result=success
Id=portfolio-check@shop.timer
LoadState=loaded
ActiveState=inactive

NextElapseUSecRealtime=
LastTriggerUSec=
Result=success
Id=portfolio-logs-rotate@shop.timer
LoadState=not-found
ActiveState=inactive
"""


def test_blocks_are_read_and_what_is_not_installed_is_left_out() -> None:
    states = parse(SHOWN)
    assert set(states) == {"backup-daily", "check"}
    assert states["backup-daily"].next == datetime(2026, 11, 24, 1, 3, 46, tzinfo=UTC)
    assert states["backup-daily"].last == datetime(2026, 11, 24, 0, 2, 51, tzinfo=UTC)
    assert states["backup-daily"].active
    assert (states["check"].next, states["check"].last, states["check"].active) == (None, None, False)


def test_nothing_is_read_from_nothing() -> None:
    assert parse("") == {}
