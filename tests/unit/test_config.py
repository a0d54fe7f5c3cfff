from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_ops import config
from portfolio_ops.errors import ConfigurationError, NotFoundError, UsageError
from portfolio_ops.setting import format_duration, parse_duration


def written(folder: Path, text: str, name: str = "shop.toml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_only_the_root_is_needed(tmp_path: Path) -> None:
    site = config.load(written(tmp_path, '[site]\nroot = "/srv/shop"\n'))
    assert site.name == "shop"
    assert site.database == Path("/srv/shop/data/portfolio.sqlite")
    assert site.backups == Path("/srv/shop/backups")
    assert site.logs == (Path("/srv/shop/logs/backend.log"),)
    assert [table.name for table in site.social_tables] == ["comments", "likes", "user_sessions", "social_interactions"]
    assert site.retention.daily == timedelta(days=30)
    assert site.retention.social == timedelta(weeks=12)
    assert site.retention.minimum == 3


def test_every_setting_tells_its_origin(tmp_path: Path) -> None:
    file = written(tmp_path, '[site]\nroot = "/srv/shop"\n[retention]\ndaily = "10d"\n')
    origins = {setting.key: (setting.value, setting.origin) for setting in config.load(file).settings}
    assert origins["retention.daily"] == ("10d", str(file))
    assert origins["retention.event"] == ("90d", "default")


def test_all_faults_are_told_at_once_each_with_file_key_and_cure(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        [site]
        databse = "x"
        [retention]
        daily = "30 days"
        minimum = 0
        logs = 7
        [socail]
        tables = []
        """,
    )
    with pytest.raises(ConfigurationError) as caught:
        config.load(file)
    problems = caught.value.problems
    assert all(problem.startswith(f"{file}: ") for problem in problems)
    assert len(problems) == 6
    text = "\n".join(problems)
    assert "unknown key site.databse; did you mean database?" in text
    assert 'site.root is missing; add  root = "/absolute/path"' in text
    assert "retention.daily '30 days' is not a duration" in text
    assert "retention.minimum must be a whole number" in text
    assert 'retention.logs must be a duration in quotes, for example "30d"' in text
    assert "unknown section [socail]; did you mean social?" in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[site\n", "is not TOML"),
        ('[site]\nroot = "srv/shop"\n', "must be an absolute path"),
        ('[site]\nroot = "/srv/shop"\nbackups = "data"\n', "a folder of its own"),
        ('[site]\nroot = "/srv/shop"\nbackups = "/"\n', "a folder of its own"),
        ('[site]\nroot = "/srv/shop"\nbackups = ".."\n', "a folder of its own"),
        ('[site]\nroot = "/srv/shop"\ndatabase = "/var/shop/x.db"\nbackups = "/var"\n', "a folder of its own"),
        ('[site]\nroot = "/srv/shop"\ndatabase = "../../etc/passwd"\n', "site.database: .* leaves the site's root"),
        ('[site]\nroot = "/srv/shop"\n[logs]\nfiles = ["../other/x.log"]\n', "leaves the site's root"),
        ('[site]\nroot = "/srv/shop"\n[logs]\nfiles = ["a.log", "a.log"]\n', "names something twice"),
        ('[site]\nroot = "/srv/\\u0000"\n', "must be text"),
        ("site = 3\n", "must be a section"),
        ('[site]\nroot = "/srv/shop"\n[retention]\nminimum = true\n', "whole number"),
        ('[site]\nroot = "/srv/shop"\n[gallery]\ntable = "galleries"\n', "gallery.name is missing"),
        ('[site]\nroot = "/srv/shop"\n[gallery]\nname = "slug"\n', "gallery.table is missing"),
        ('[site]\nroot = "/srv/shop"\n[gallery]\ntable = ""\nname = "slug"\n', "gallery.table must be text"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        config.load(written(tmp_path, text))


def test_a_file_whose_name_is_no_site_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the name must be"):
        config.load(written(tmp_path, '[site]\nroot = "/srv"\n', name="My Shop.toml"))
    with pytest.raises(NotFoundError, match="there is no configuration"):
        config.load(tmp_path / "none.toml")


def test_optional_tables_end_in_a_question_mark(tmp_path: Path) -> None:
    text = '[site]\nroot = "/srv"\n[social]\ntables = ["comments", "polls?"]\n'
    tables = config.load(written(tmp_path, text)).social_tables
    assert [(table.name, table.optional) for table in tables] == [("comments", False), ("polls", True)]


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5d", "0d", "30D", "9" * 30 + "w", "1d,2h", "200000d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|century|nothing"):
        parse_duration(text)


@given(st.integers(1, 36525 * 86400))
def test_durations_survive_being_written_and_read(seconds: int) -> None:
    value = timedelta(seconds=seconds)
    assert parse_duration(format_duration(value)) == value


def test_the_site_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DIRECTORY", tmp_path)
    with pytest.raises(NotFoundError, match="no site is configured"):
        config.find(None, None)
    one = written(tmp_path, "", name="one.toml")
    assert config.find(None, None) == one
    written(tmp_path, "", name="two.toml")
    with pytest.raises(UsageError, match="one, two"):
        config.find(None, None)
    assert config.find(None, "two") == tmp_path / "two.toml"
    monkeypatch.setenv("PORTFOLIO_OPS_CONFIG", "/elsewhere/x.toml")
    assert config.find(None, None) == Path("/elsewhere/x.toml")
    with pytest.raises(UsageError):
        config.find(None, "../../etc/passwd")
    with pytest.raises(UsageError):
        config.find(one, "two")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('compose = "srv"', "backend.compose must be an absolute path"),
        ('compose = "/srv"\nstop = ["x"]', "backend.stop and backend.compose exclude each other"),
        ('stop = ["x"]\nstart = ["x"]', "backend.status is missing"),
        ('stop = "systemctl stop x"', "must be a program and its arguments as a list"),
        ("stop = []", "must be a program and its arguments as a list"),
        ('health = "localhost:3000"', "must be a URL"),
        ('patience = "soon"', "is not a duration"),
    ],
)
def test_a_backend_is_configured_in_one_way_and_wholly(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.load(written(tmp_path, f'[site]\nroot = "/srv/shop"\n[backend]\n{text}\n'))
    assert words in str(caught.value)


def test_a_compose_service_becomes_argument_lists(tmp_path: Path) -> None:
    text = '[site]\nroot = "/srv/shop"\n[backend]\ncompose = "/srv/a b"\nservice = "--evil"\n'
    backend = config.load(written(tmp_path, text)).backend
    assert backend.stop == ("docker", "compose", "--project-directory", "/srv/a b", "stop", "--", "--evil")
    assert backend.described == "the compose service --evil in /srv/a b"


def test_secrets_are_named_and_urls_checked(tmp_path: Path) -> None:
    head = '[site]\nroot = "/srv/shop"\n[alert]\n'
    assert config.load(written(tmp_path, f'{head}webhook = "credential:chat"\n')).alert.webhook == "credential:chat"
    for value in ("credential:", "credential:../x", "ftp://x/y", "chat"):
        with pytest.raises(ConfigurationError, match=r"alert\.webhook"):
            config.load(written(tmp_path, f'{head}webhook = "{value}"\n'))


def test_drills_restore_into_the_backups_unless_told(tmp_path: Path) -> None:
    site = config.load(written(tmp_path, '[site]\nroot = "/srv/shop"\n'))
    assert site.drill.scratch == site.state
    site = config.load(written(tmp_path, '[site]\nroot = "/srv/shop"\n[drill]\nscratch = "/mnt/scratch"\n'))
    assert site.drill.scratch == Path("/mnt/scratch")


def test_a_name_that_was_mistyped_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as alone:
        config.load(tmp_path / "sopp.toml")
    assert alone.value.suggestion.startswith("create it with two lines")
    (tmp_path / "shop.toml").touch()
    with pytest.raises(NotFoundError) as beside:
        config.load(tmp_path / "sopp.toml")
    assert beside.value.suggestion.startswith("configured are: shop; or create it")
