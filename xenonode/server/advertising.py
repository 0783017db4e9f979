"""Advertising: when to tell the world what this server offers, and what to say.

Decides whether an advert is due, and makes it from the owner's offer, the hypervisor's abilities, and what is
available. Leaves spreading it to the search. Source: the poster: an advertisement, produced periodically, holds
identity, ownership, location, resources in total and available, and prices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from dht.envelope import Envelope
from dht.identity import Signer
from hypervisor.adapter import Capabilities
from xenonode.model.advert import ENVIRONMENTS_MAX, FEATURES_MAX, LIFETIME_MAX_MS, Advert, Location
from xenonode.model.entity import Address
from xenonode.model.message import require
from xenonode.model.resources import Resources
from xenonode.server.admission import Admission
from xenonode.server.journal import Journal

PERIODS_PER_LIFETIME = 3
"""An advert survives two lost heartbeats."""
GAP_MIN_MS = 1_000
"""However fast sessions come and go, eleven dimensions are told at most once a second."""
RETRY_MS = 5_000
"""The first try again of an advert that not all dimensions acknowledged; each further one waits twice as long."""
BINS = 256
BINS_MAX = 4
"""A change of up to 4 of 256 parts can wait for the heartbeat: the summaries are about as coarse."""
MOVE_MIN_US = 5_000
MOVE_GAP_MS = 10_000
"""A network coordinate that moved by more than its usual noise (a few ms) is told, but not while it still settles."""
SEQ_COUNTER = "advert_seq"


@dataclass(frozen=True, slots=True)
class AdvertFacts:
    """What an advert says of a server besides its resources."""

    country: str
    region: str
    udp: Address
    control: Address
    features: tuple[str, ...]
    started_ms: int
    schema_epoch: int
    period_ms: int

    def __post_init__(self) -> None:
        require(GAP_MIN_MS <= self.period_ms <= LIFETIME_MAX_MS // PERIODS_PER_LIFETIME, "a period is 1 s to 5 min")


class Advertiser:
    """Keeps one server's advert current. Its seq is the time, or one more than the last: it never falls."""

    def __init__(self, signer: Signer, journal: Journal, admission: Admission, facts: AdvertFacts) -> None:
        self._signer, self._journal, self._admission, self._facts = signer, journal, admission, facts
        self._changed = True
        self._tries = 0
        self._advert: Advert | None = None
        self._envelope: Envelope | None = None

    @property
    def current(self) -> Envelope | None:
        """The advert in force, signed; None before the first."""
        return self._envelope

    @property
    def seq(self) -> int:
        """The number of the advert in force; 0 before the first."""
        return 0 if self._advert is None else self._advert.seq

    def changed(self) -> None:
        """A session came, went, or changed its size; or what some holders had is to be put into other hands."""
        self._changed = True

    def moved(self, udp: Address, control: Address) -> None:
        """The server is reached elsewhere from now on."""
        self._facts = replace(self._facts, udp=udp, control=control)
        self._changed = True

    def acknowledged(self) -> None:
        """Learn that every dimension has the advert in force."""
        self._tries = 0

    def due(self, now_ms: int, location: Location) -> bool:
        """Whether a new advert should be issued now, by a server that finds itself at `location`."""
        last = self._advert
        if last is None:
            return True
        period_ms = self._facts.period_ms
        wait_ms = min(RETRY_MS << min(self._tries - 1, 10), period_ms) if self._tries else period_ms
        passed_ms = abs(now_ms - last.issued_ms)  # a clock set back must not silence the server
        if passed_ms >= wait_ms:
            return True
        if passed_ms >= MOVE_GAP_MS and drifted(last.location, location):
            return True
        return passed_ms >= GAP_MIN_MS and (self._changed or moved(last, self._admission.available))

    def issue(self, now_ms: int, location: Location, credential: bytes, *, gone: bool = False) -> Envelope:
        """Make and sign the next advert; with `gone`, one that withdraws the server."""
        seq = max(now_ms, self._journal.counter(SEQ_COUNTER) + 1)
        self._journal.count(SEQ_COUNTER, seq)
        self._advert = replace(self._make(now_ms, location, credential), seq=seq, gone=gone)
        self._envelope = self._advert.seal(self._signer).compact()
        self._changed = False
        self._tries += 1
        return self._envelope

    def _make(self, now_ms: int, location: Location, credential: bytes) -> Advert:
        facts, offer = self._facts, self._admission.offer
        return Advert(
            seq=0,
            issued_ms=now_ms,
            expires_ms=now_ms + PERIODS_PER_LIFETIME * facts.period_ms,
            gone=False,
            credential=credential,
            country=facts.country,
            region=facts.region,
            location=location,
            udp=facts.udp,
            control=facts.control,
            cores=offer.cores,
            total=offer.total,
            available=self._admission.available,
            prices=offer.prices,
            environments=tuple(each.environment for each in offer.environments)[:ENVIRONMENTS_MAX],
            features=features(facts.features, self._admission.capabilities, offer.overcommit_permille),
            started_ms=facts.started_ms,
            schema_epoch=facts.schema_epoch,
        )


def moved(last: Advert, available: Resources) -> bool:
    """Whether some resource's availability moved by more than the summaries would blur anyway."""
    amounts = zip(last.available.amounts, available.amounts, last.total.amounts)
    return any(abs(now - before) * BINS > BINS_MAX * total for before, now, total in amounts)


def drifted(before: Location, now: Location) -> bool:
    """Whether a network coordinate is another place by now."""
    if before == now:
        return False
    return (
        abs(now.x_us - before.x_us) > MOVE_MIN_US
        or abs(now.y_us - before.y_us) > MOVE_MIN_US
        or abs(now.z_us - before.z_us) > MOVE_MIN_US
        or abs(now.height_us - before.height_us) > MOVE_MIN_US
    )


def features(owners: tuple[str, ...], capabilities: Capabilities, overcommit_permille: int) -> tuple[str, ...]:
    """What the advert lists as features: how guests are run, whether they are overcommitted, what the owner names."""
    named = [capabilities.virtualisation]
    if overcommit_permille != 1000:
        named.append(f"overcommit-{overcommit_permille}")
    return tuple(dict.fromkeys([*named, *owners]))[:FEATURES_MAX]
