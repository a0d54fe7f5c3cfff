"""Keeps a site's SQLite database and logs so that any moment can be brought back, and proves it."""

__version__ = "0.1.0"
