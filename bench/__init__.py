"""The room of the bench: BorgCube against stock Borg, alternating, in one run."""
