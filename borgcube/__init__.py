"""BorgCube: a self-hosted backup server that pulls with BorgBackup."""

__version__ = "0.1.0"
