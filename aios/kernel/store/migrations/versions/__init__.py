"""One module per format of the store, oldest first."""
