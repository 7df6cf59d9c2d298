"""The command line: parses, asks the daemon over control, prints. It decides nothing."""
