"""Regions, the region each is paired with, and the geography both lie in (requirements 2.1, 2.9).

Paired regions fail over to each other, so two vaults in a pair have fewer regions of availability between them than two in regions
that are not paired. A key backup is restored only within its geography (R-062).
"""

from __future__ import annotations

from keystead.core.errors import InvalidRequest

_PAIRS = (
    ("Europe", "westeurope", "northeurope"),
    ("France", "francecentral", "francesouth"),
    ("Germany", "germanywestcentral", "germanynorth"),
    ("Norway", "norwayeast", "norwaywest"),
    ("Switzerland", "switzerlandnorth", "switzerlandwest"),
    ("United Kingdom", "uksouth", "ukwest"),
    ("United States", "eastus", "westus"),
    ("United States", "eastus2", "centralus"),
    ("United States", "northcentralus", "southcentralus"),
    ("United States", "westus2", "westcentralus"),
    ("Canada", "canadacentral", "canadaeast"),
    ("Asia Pacific", "eastasia", "southeastasia"),
    ("Japan", "japaneast", "japanwest"),
    ("Australia", "australiaeast", "australiasoutheast"),
)

GEOGRAPHY = {region: geography for geography, *pair in _PAIRS for region in pair}
"""Geography of every known region."""

_PAIRED = {here: there for _, first, second in _PAIRS for here, there in ((first, second), (second, first))}


def region_name(text: str) -> str:
    """A known region in lower case without spaces, so that `West Europe` is understood.

    Raises:
        InvalidRequest: `region_not_supported`.
    """
    region = text.replace(" ", "").lower()
    if region not in GEOGRAPHY:
        raise InvalidRequest("region_not_supported", f"{text!r} is not a known region", f"use one of: {', '.join(sorted(GEOGRAPHY))}")
    return region


def paired_region(region: str) -> str | None:
    """The region this one fails over to; None for a region we do not know."""
    return _PAIRED.get(region)
