"""Who of those that have a database open does certainly not end with the backend."""

from dataclasses import replace
from pathlib import Path

import pytest

from portfolio_ops import config
from portfolio_ops.errors import RefusedError
from portfolio_ops.host import holders
from portfolio_ops.host.holders import Holder
from portfolio_ops.restore.plan import require_a_way_to_stop

SHELL = Holder(812, "sqlite3")
ID = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("group", "certain"),
    [
        ("0::/user.slice/user-0.slice/session-3.scope\n", True),
        ("0::/user.slice/user-1000.slice/session-c12.scope/inner\n", True),
        ("9:memory:/user.slice\n1:name=systemd:/user.slice/user-0.slice/session-3.scope\n0::/\n", True),
        (f"0::/system.slice/docker-{ID}.scope\n", False),
        (f"12:cpu:/docker/{ID}\n1:name=systemd:/docker/{ID}\n", False),
        (f"0::/user.slice/user-0.slice/session-3.scope/libpod-{ID}.scope\n", False),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/shop.service\n", False),
        ("0::/system.slice/shop.service\n", False),
        ("0::/system.slice/session-keeper.service\n", False),
        ("0::/\n", False),
        (None, False),
    ],
)
def test_a_login_is_refused_before_a_compose_service_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str | None, *, certain: bool
) -> None:
    file = tmp_path / "shop.toml"
    file.write_text(f'[site]\nroot = "{tmp_path}"\n[backend]\ncompose = "/srv/backend"\nservice = "web"\n')
    site = config.load(file)
    monkeypatch.setattr(holders, "_PROC", tmp_path)
    if group is not None:
        (tmp_path / "812").mkdir()
        (tmp_path / "812/cgroup").write_text(group)
    assert holders.is_of_a_login(SHELL) is certain
    others = [Holder(7, "node"), SHELL]
    if not certain:
        require_a_way_to_stop(site, site.database, others, running=True)
        return
    with pytest.raises(RefusedError, match=r"in use by sqlite3 \(process 812\) in somebody's login, which"):
        require_a_way_to_stop(site, site.database, others, running=True)
    # Any other backend may have been started in a login.
    other = replace(site, backend=replace(site.backend, running_service=""))
    require_a_way_to_stop(other, site.database, others, running=True)
