"""SQLite files and how to read them while others write. Knows no site."""
