"""Can a super-resolved image be trusted: the two ways in."""

from .consistency import consistency
from .triple import opensr_quantities

__all__ = ["consistency", "opensr_quantities"]
