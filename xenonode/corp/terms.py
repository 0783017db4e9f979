"""XenoCorp's terms: the few figures that an operator may choose, and what they default to."""

from __future__ import annotations

from dataclasses import dataclass

from xenonode.config import CorpConfig
from xenonode.model.message import INT64_MAX, require
from xenonode.model.resources import NANO

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Terms:
    """Fee in basis points of what is captured; a credential's life; keys and balance that one entity may have.

    `approval`: a registration counts only once the operator has approved it, as on every public network.
    """

    fee_basis_points: int = 0
    credential_ms: int = 7 * DAY_MS
    keys_per_entity: int = 8
    max_balance_nano: int = 1_000_000 * NANO
    approval: bool = False

    def __post_init__(self) -> None:
        require(0 <= self.fee_basis_points <= 10_000, "a fee lies in 0..10000 basis points")
        require(0 < self.credential_ms <= 90 * DAY_MS, "a credential lives at most as long as the issuing key")
        require(self.keys_per_entity >= 1, "an entity needs at least one key")
        require(0 < self.max_balance_nano <= INT64_MAX, "the largest balance must be more than zero and fit 64 bits")

    @classmethod
    def of(cls, config: CorpConfig) -> Terms:
        """The terms that a configuration sets."""
        balance = min(config.max_balance_usd * NANO, INT64_MAX)
        approval = config.profile == "public"
        return cls(config.fee_basis_points, config.credential_days * DAY_MS, config.keys_per_entity, balance, approval)
