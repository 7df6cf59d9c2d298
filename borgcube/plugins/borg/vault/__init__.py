"""The vault: the only process that opens a given repository, and the holder of its key."""
