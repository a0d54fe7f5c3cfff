"""Logs: lossless rotation, and reading archives back."""
