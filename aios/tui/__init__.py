"""`aios top`: the process monitor. A client of the public API; the only user of Textual."""
