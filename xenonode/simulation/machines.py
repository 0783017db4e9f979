"""The machines of simulated worlds: what a server of the catalogue offers, signed in its name.

Decides how a row of the catalogue becomes a whole machine that can advertise: its key, its environments, where it
stands, since when it runs. Leaves who spreads its adverts to the worlds.
"""

from __future__ import annotations

from random import Random

from dht.envelope import Envelope
from hypervisor.adapter import Capabilities, OfferedImage
from hypervisor.simulated import ALL_ABILITIES
from xenonode import catalogue
from xenonode.catalogue import ServerShape
from xenonode.env import Env
from xenonode.model.advert import Location
from xenonode.model.entity import Address
from xenonode.model.resources import NO_RESOURCES
from xenonode.server.admission import Admission, Offer, environment_offers
from xenonode.server.advertising import AdvertFacts, Advertiser
from xenonode.server.journal import Journal
from xenonode.server_node import image_hash
from xenonode.simulation.disk import SimulatedDisk

IMAGES = (
    (("os", "linux", "6.1"), ("os", "debian", "12")),
    (("os", "linux", "6.8"), ("os", "ubuntu", "24.04")),
    (("os", "linux", "6.6"), ("os", "alpine", "3.20"), ("platform", "python", "3.12")),
    (("os", "freebsd", "14.1"),),
    (("os", "linux", "5.14"), ("os", "rocky", "9"), ("platform", "jvm", "21")),
)
"""What machines offer; the first is what the guests of a world's own servers run."""
IMAGE_MIN_BYTES = 64 * 2**20
LONGEST_PERIOD_MS = 300_000
"""The longest period that an advert may have: machines without sessions change rarely."""


def image(number: int) -> OfferedImage:
    """One of IMAGES as a hypervisor offers it."""
    return OfferedImage(f"simulated-{number}", IMAGES[number], IMAGE_MIN_BYTES)


class Machine:
    """A machine that only advertises: key, place, offer and advert of its own."""

    __slots__ = ("admission", "advertiser", "disk", "location", "name", "shape", "signer", "started_ms")

    def __init__(self, env: Env, name: str, shape: ServerShape, rng: Random) -> None:
        self.name, self.shape = name, shape
        self.signer, self.disk = env.scheme.generate(env.seed(name)), SimulatedDisk()
        sampled = catalogue.sample_attributes(rng, shape, name, ())
        self.location = Location(*sampled["location"])  # type: ignore[misc]  # four integers, by its definition
        self.started_ms = env.now_ms() - 1_000 * int(sampled["uptime"])  # type: ignore[arg-type]  # an integer
        capabilities = Capabilities(
            "simulated:///", "simulated", shape.cores, shape.share.memory_bytes, ALL_ABILITIES,
            (image(rng.randrange(len(IMAGES))),),
        )  # fmt: skip
        offers = environment_offers(capabilities, image_hash)
        offer = Offer(shape.share, NO_RESOURCES, min(shape.cores, 4096), shape.prices, offers)
        self.admission = Admission(offer, capabilities)
        self.advertiser: Advertiser

    def appear(self, udp: Address, control: Address, epoch: int, period_ms: int = LONGEST_PERIOD_MS) -> None:
        """Say how it is reached, and be ready to advertise; after a restart its sequence numbers go on."""
        shape = self.shape
        facts = AdvertFacts(
            shape.country, shape.region[:24], udp, control, shape.features, self.started_ms, epoch, period_ms
        )
        self.advertiser = Advertiser(self.signer, Journal(self.disk), self.admission, facts)

    def advert(self, now_ms: int, credential: bytes) -> Envelope:
        """Its next advert, as it is now."""
        return self.advertiser.issue(now_ms, self.location, credential)

    def is_due(self, now_ms: int) -> bool:
        """Whether its next advert should be issued."""
        return self.advertiser.due(now_ms, self.location)
