"""The command line: a client of the public API like any other, and the way to start an embedded kernel."""
