"""The gate: hostile bytes in, verified chunks out. No repository key, no file access.

Nothing here imports borg; the two formats it must know (RPC and compression) are small.
"""
