"""Where the catalogue's regions are: country, city, and the city's place on Earth.

Source: the provider's published list of regions and zones. A region's place is its city's, to a tenth of a degree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from xenonode.model.advert import Location

ANTIPODE_US = 300_000
"""Round trip to the other side of the Earth: 40,000 km of fibre at 200 km/ms, on paths half as long again."""


@dataclass(frozen=True, slots=True)
class Region:
    """One region: ISO 3166 code of its country, city, and place in tenths of a degree."""

    country: str
    city: str
    latitude_decidegrees: int
    longitude_decidegrees: int

    @property
    def location(self) -> Location:
        """As a network coordinate on a sphere on which the straight line between two places is their round trip."""
        latitude = math.radians(self.latitude_decidegrees / 10)
        longitude = math.radians(self.longitude_decidegrees / 10)
        radius_us = ANTIPODE_US / 2
        return Location(
            round(radius_us * math.cos(latitude) * math.cos(longitude)),
            round(radius_us * math.cos(latitude) * math.sin(longitude)),
            round(radius_us * math.sin(latitude)),
            0,
        )


REGIONS: dict[str, Region] = {
    "af-south-1": Region("ZA", "Cape Town", -339, 184),
    "ap-east-1": Region("HK", "Hong Kong", 223, 1142),
    "ap-northeast-1": Region("JP", "Tokyo", 357, 1397),
    "ap-northeast-2": Region("KR", "Seoul", 376, 1270),
    "ap-northeast-3": Region("JP", "Osaka", 347, 1355),
    "ap-south-1": Region("IN", "Mumbai", 191, 729),
    "ap-south-2": Region("IN", "Hyderabad", 174, 785),
    "ap-southeast-1": Region("SG", "Singapore", 14, 1038),
    "ap-southeast-2": Region("AU", "Sydney", -339, 1512),
    "ap-southeast-3": Region("ID", "Jakarta", -62, 1068),
    "ap-southeast-4": Region("AU", "Melbourne", -378, 1450),
    "ap-southeast-5": Region("MY", "Kuala Lumpur", 31, 1017),
    "ap-southeast-7": Region("TH", "Bangkok", 138, 1005),
    "ca-central-1": Region("CA", "Montreal", 455, -736),
    "ca-west-1": Region("CA", "Calgary", 510, -1141),
    "eu-central-1": Region("DE", "Frankfurt", 501, 87),
    "eu-central-2": Region("CH", "Zurich", 474, 85),
    "eu-north-1": Region("SE", "Stockholm", 593, 181),
    "eu-south-1": Region("IT", "Milan", 455, 92),
    "eu-south-2": Region("ES", "Zaragoza", 416, -9),
    "eu-west-1": Region("IE", "Dublin", 533, -63),
    "eu-west-2": Region("GB", "London", 515, -1),
    "eu-west-3": Region("FR", "Paris", 489, 24),
    "il-central-1": Region("IL", "Tel Aviv", 321, 348),
    "me-central-1": Region("AE", "Dubai", 252, 553),
    "me-south-1": Region("BH", "Manama", 262, 506),
    "mx-central-1": Region("MX", "Queretaro", 206, -1004),
    "sa-east-1": Region("BR", "Sao Paulo", -236, -466),
    "us-east-1": Region("US", "Ashburn", 390, -775),
    "us-east-2": Region("US", "Columbus", 400, -830),
    "us-gov-east-1": Region("US", "Columbus", 400, -830),
    "us-gov-west-1": Region("US", "Portland", 455, -1227),
    "us-west-1": Region("US", "San Francisco", 378, -1224),
    "us-west-2": Region("US", "Portland", 455, -1227),
    "us-west-2-lax-1": Region("US", "Los Angeles", 341, -1182),
}
