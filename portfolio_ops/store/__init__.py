"""What is kept, and for how long: artifacts, publishing, the catalogue, retention, locks, run records."""
