"""The fixtures of a release bundle."""

from released import developer, forged, honest, policy_file

__all__ = ["developer", "forged", "honest", "policy_file"]
