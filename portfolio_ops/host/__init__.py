"""The outside world, thin: files, identity, the journal, systemd."""
