"""Schema evolution: ordered steps with literal IDs that are never renamed or removed."""

from borgcube.core.evolution.steps import CORE_STEPS, EvolutionStep

__all__ = ["CORE_STEPS", "EvolutionStep"]
