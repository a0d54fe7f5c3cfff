"""The HTTP face: who may ask, what is answered, and for how long it stays."""
