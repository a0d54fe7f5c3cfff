"""What the tests share: a small site on a real disk."""

import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import settings

from portfolio_ops import calling, config
from portfolio_ops.config import Site

# How long an example takes is the machine's business; timings are measured in benchmarks/.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

SCHEMA = """
CREATE TABLE galleries(id INTEGER PRIMARY KEY, slug TEXT UNIQUE NOT NULL, title TEXT);
CREATE TABLE images(id INTEGER PRIMARY KEY, gallery INTEGER REFERENCES galleries(id), body BLOB);
CREATE TABLE comments(id INTEGER PRIMARY KEY AUTOINCREMENT, image INTEGER REFERENCES images(id), body TEXT);
CREATE TABLE likes(image INTEGER, visitor TEXT, PRIMARY KEY(image, visitor)) WITHOUT ROWID;
CREATE TABLE user_sessions(token TEXT PRIMARY KEY, seen INTEGER);
CREATE TABLE social_interactions(id INTEGER PRIMARY KEY, kind TEXT, at INTEGER);
CREATE INDEX comments_image ON comments(image);
"""


def make_database(path: Path, *, images: int = 50, journal_mode: str = "wal", page_size: int = 4096) -> None:
    """A portfolio's database with some content."""
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA page_size={page_size}")
    connection.execute(f"PRAGMA journal_mode={journal_mode}")
    connection.executescript(SCHEMA)
    connection.execute("INSERT INTO galleries(slug, title) VALUES('first', 'First light')")
    connection.executemany(
        "INSERT INTO images(gallery, body) VALUES(1, ?)", [(os.urandom(900),) for _ in range(images)]
    )
    connection.executemany("INSERT INTO comments(image, body) VALUES(?, ?)", [(i, f"'{i}'\n") for i in range(images)])
    connection.executemany("INSERT INTO likes VALUES(?, ?)", [(i, f"v{i % 7}") for i in range(images)])
    connection.commit()
    connection.close()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A configured site with a database in WAL mode and one log."""
    root = tmp_path / "site"
    (root / "data").mkdir(parents=True)
    (root / "logs").mkdir()
    (root / "logs/backend.log").write_bytes(b"first line\nsecond line\n")
    make_database(root / "data/portfolio.sqlite")
    file = tmp_path / "shop.toml"
    file.write_text(f'[site]\nroot = "{root}"\n')
    return config.load(file)


@pytest.fixture(autouse=True)
def _no_site_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or notifies what the machine it runs on has configured."""
    monkeypatch.delenv("PORTFOLIO_OPS_CONFIG", raising=False)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)


@pytest.fixture(autouse=True)
def _about_no_site() -> None:
    """A process is about one site; what a test before called in this one was about another."""
    calling.about([])
