"""One file for each thing that a timer starts."""
