"""Bringing a database back: choose, stage and check, swap. Nothing here knows jobs or the command line."""
