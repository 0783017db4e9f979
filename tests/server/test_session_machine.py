"""A stateful machine drives the session core with every event in every order; what it promises holds throughout."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dht import wire
from hypervisor.environment import State as GuestState
from hypervisor.environment import Usage
from xenonode.model.money import Settlement
from xenonode.model.resources import Prices, Resources, rate_nano_per_hour
from xenonode.model.session import Receipt, SessionCommand, UsageRecord, exposure_limit_nano
from xenonode.server import session_events as ev
from xenonode.server.metering import Instant
from xenonode.server.session_core import step
from xenonode.server.session_rules import EXPOSED_MAX_MS
from xenonode.server.session_state import (
    ENDED,
    HOLDING,
    LIVE,
    PAUSED,
    REQUESTED,
    RUNNING,
    STARTING,
    STOPPING,
    TRANSITIONS,
    Session,
    requested,
)

from .test_journal import session as blank
from .world import EPOCH_MS

PRICES = Prices("USD", 10**9, 10**8, 0, 0)
WANTED = Resources(1000, 2**30, 0, 0)
CAP = rate_nano_per_hour(WANTED, PRICES)
AMOUNT = CAP // 6  # ten minutes at full rate, so that E is half a minute
LEASE_MS = 30 * 60_000
ALLOWED = {(source, target) for (source, _), target in TRANSITIONS.items()}


def beginning() -> Session:
    agreement = replace(
        blank(1).agreement,
        prices=PRICES,
        resources=WANTED,
        exposure_nano=exposure_limit_nano(AMOUNT, CAP),
        receipt_period_ms=60_000,
    )
    reservation = replace(
        blank(1).reservation,
        amount_nano=AMOUNT,
        rate_cap_nano_per_hour=CAP,
        lease_until_ms=EPOCH_MS + LEASE_MS,
    )
    return requested(b"i" * 16, agreement, reservation, b"client", "micro", EPOCH_MS)


class SessionMachine(RuleBasedStateMachine):
    """The driver, the guest, the client and XenoCorp, each as bad as hypothesis likes."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms, self.run, self.cpu_ns = EPOCH_MS, 1, 0
        self.session = beginning()
        self.guest: GuestState | None = None
        self.failed = False
        self.todo: list[ev.Effect] = []
        self.signed: dict[int, bytes] = {}
        self.captured, self.settled_ids = 0, {}
        self.durable = self.session
        self.apply(ev.Validated(b"server"))

    # -- the world --------------------------------------------------------------------------------------

    def reading(self) -> ev.Reading:
        state = self.guest or GuestState.STOPPED
        return ev.Reading(Usage(0, state, self.cpu_ns, 2**30), Instant(self.run, self.now_ms, self.now_ms))

    def apply(self, event: ev.Event) -> list[ev.Effect]:
        before = self.session
        after, effects = step(before, event, self.now_ms)
        if after.state != before.state:
            assert (before.state, after.state) in ALLOWED
            assert ev.Save() in effects, "a change of state is durable"
        assert after.due_nano >= before.due_nano and after.receipt_seq >= before.receipt_seq
        if after.issued != before.issued or after.claim != before.claim or after.receipt != before.receipt:
            assert ev.Save() in effects, "what others can see is durable"
        self.session = after
        if ev.Save() in effects:
            self.durable = Session.from_fields(dict(wire.decode(wire.encode(after.to_fields()))))  # type: ignore[arg-type]
            assert self.durable == after
        for effect in effects:
            self.perform(effect)
        return effects

    def perform(self, effect: ev.Effect) -> None:
        if isinstance(effect, ev.SignUsage):
            record = replace(effect.record, log_head=b"h" * 32)
            raw = wire.encode(record.to_fields())
            assert self.signed.setdefault(record.seq, raw) == raw, "one number, two records"
            self.apply(ev.UsageSigned(record, bytes([record.seq % 256]) * 16, raw))
        elif isinstance(effect, ev.MakeClaim):
            assert self.session.claim is None
            self.apply(ev.ClaimMade(bytes([len(self.settled_ids)]) * 16, b"claim", effect))
        elif isinstance(effect, ev.SignAmendment):
            self.apply(ev.Amended(b"amendment", effect.order))
        elif isinstance(effect, (ev.PauseGuest, ev.ResumeGuest)):
            if self.guest not in (GuestState.RUNNING, GuestState.PAUSED):
                self.failed = True  # the driver refuses the command, or tries again at the next reading
            elif isinstance(effect, ev.PauseGuest):
                self.guest = GuestState.PAUSED
                self.apply(ev.Paused(self.reading(), effect.order))
            else:
                self.guest = GuestState.RUNNING
                self.apply(ev.Resumed(self.reading(), effect.order))
        elif isinstance(effect, ev.ResizeGuest):
            self.apply(ev.Resized(effect.resources, self.reading(), effect.order))
        elif isinstance(effect, (ev.Launch, ev.TearDown)) and effect not in self.todo:
            self.todo.append(effect)

    # -- what may happen --------------------------------------------------------------------------------

    @initialize(boots=st.booleans())
    def begin(self, boots: bool) -> None:
        if boots:
            self.launch(True)

    @rule(passed_ms=st.integers(1, 200_000), share=st.integers(0, 1000), answers=st.booleans())
    def time_passes(self, passed_ms: int, share: int, answers: bool) -> None:
        for _ in range(0, passed_ms, 1000):
            self.now_ms += 1000
            if self.guest is GuestState.RUNNING:
                self.cpu_ns += share * 1_000_000
            self.apply(ev.Sampled(self.reading()) if self.guest else ev.Tick())
            if answers:
                self.receipt(-1, True)

    @precondition(lambda self: ev.Launch() in self.todo and self.guest is None)
    @rule(works=st.sampled_from([True, True, True, False]))
    def launch_begins(self, works: bool) -> None:
        self.launch(works)

    def launch(self, works: bool) -> None:
        self.todo.remove(ev.Launch())
        if self.session.state not in ("agreed", STARTING):
            return
        self.apply(ev.LaunchBegan())
        if self.session.state != STARTING:
            return
        self.now_ms += 3000
        if works:
            self.guest, self.cpu_ns = GuestState.RUNNING, self.cpu_ns + 10**9
            self.apply(ev.Booted(b"start", self.reading()))
            assert self.session.due_nano == 0, "the boot is not billed"
        else:
            self.apply(ev.BootFailed("no answer"))

    @precondition(lambda self: ev.TearDown() in self.todo)
    @rule(read=st.booleans())
    def tear_down(self, read: bool) -> None:
        self.todo.remove(ev.TearDown())
        reading = self.reading() if read and self.guest else None
        self.guest = None
        self.apply(ev.Gone(reading))

    @precondition(lambda self: self.guest is not None)
    @rule(state=st.sampled_from([None, None, None, None, GuestState.STOPPED, GuestState.CRASHED]))
    def guest_may_end(self, state: GuestState | None) -> None:
        self.guest = state or self.guest

    @rule(which=st.integers(0, 7), accepted=st.booleans())
    def a_receipt_comes(self, which: int, accepted: bool) -> None:
        self.receipt(which, accepted)

    def receipt(self, which: int, accepted: bool) -> None:
        if self.session.issued:
            issued = self.session.issued[which % len(self.session.issued)]
            receipt = Receipt(self.session.id, issued.id, issued.seq, accepted, "", self.now_ms)
            self.apply(ev.Receipted(receipt, b"receipt"))

    @rule(
        action=st.sampled_from(["pause", "resume", "resize", "resume", "resize", "stop"]),
        replay=st.booleans(),
        cpu=st.integers(10, 2000),
    )
    def command(self, action: str, replay: bool, cpu: int) -> None:
        wanted = replace(WANTED, cpu_ms_per_s=cpu) if action == "resize" else None
        seq = self.session.command_seq + (0 if replay and self.session.command_seq else 1)
        before = self.session
        command = SessionCommand(before.id, seq, action, wanted, self.now_ms)
        self.failed = False
        effects = self.apply(ev.Commanded(command, bytes([seq % 256]) * 15 + b"x"))
        if seq <= before.command_seq:
            assert self.session == before, "a replay does nothing"
        refused = self.failed or any(isinstance(effect, ev.Refuse) for effect in effects)
        assert refused or seq == before.command_seq or self.session.command_seq == seq
        assert rate_nano_per_hour(self.session.resources, PRICES) <= CAP

    @rule(by_owner=st.booleans())
    def server_stops(self, by_owner: bool) -> None:
        ended = self.session.state in (STOPPING, *ENDED)
        effects = self.apply(ev.StopOrdered("sold", by_owner))
        assert (ev.Audit("operator_stop", {"reason": "sold"}) in effects) is by_owner
        assert ended or (self.session.state == STOPPING and self.session.reason == "sold")

    @precondition(lambda self: self.session.claim is not None)
    @rule(answer=st.sampled_from(["settle", "lose the answer", "refuse"]))
    def corp_answers(self, answer: str) -> None:
        claim = self.session.claim
        assert claim is not None
        if answer == "refuse" and claim.id not in self.settled_ids:
            self.apply(ev.ClaimRefused("no"))
            self.settled_ids[claim.id] = None
            return
        if claim.id not in self.settled_ids:
            due = max(self.captured, UsageRecord.from_fields(self.claimed(claim.seq)).due_nano if claim.cosigned else 0)
            self.settled_ids[claim.id] = due
            assert due >= self.captured
            self.captured = due
        if answer == "settle" and self.settled_ids[claim.id] is not None:
            cumulative = self.settled_ids[claim.id]
            settlement = Settlement(
                claim.id, b"r" * 16, self.session.id, 0, 0, cumulative, 0, "USD", claim.final, self.now_ms
            )
            self.apply(ev.ClaimSettled(settlement, b"settlement"))

    def claimed(self, seq: int) -> dict[str, Any]:
        fields = wire.decode(self.signed[seq])
        assert isinstance(fields, dict)
        return fields

    @rule(away_ms=st.sampled_from([0, 0, 30_000, 1_200_000]), kept=st.sampled_from([True, True, True, False]))
    def server_restarts(self, away_ms: int, kept: bool) -> None:
        if self.durable.state == REQUESTED:
            return
        self.session, self.todo = self.durable, []
        self.now_ms, self.run = self.now_ms + away_ms, self.run + 1
        if not kept or self.session.state not in HOLDING:
            self.guest = None
        if self.session.state == STARTING:
            self.guest = None  # the launch begins again by removing what it finds
        self.apply(ev.Restarted(self.reading() if self.guest else None))

    # -- what always holds ------------------------------------------------------------------------------

    @invariant()
    def money_is_bounded(self) -> None:
        session = self.session
        assert session.due_nano <= session.reservation.amount_nano
        assert self.captured <= session.due_nano
        assert self.session.unsigned_nano <= AMOUNT
        if self.run == 1:  # across a restart ten minutes may be counted at once
            slack_s = 2 if session.state in LIVE else 7  # a sample period; and the last reading
            assert session.unsigned_nano <= session.agreement.exposure_nano + slack_s * (CAP // 3600 + 1)

    @invariant()
    def states_are_consistent(self) -> None:
        session = self.session
        assert session.state not in (PAUSED, RUNNING) or session.start is not None
        if session.state == STOPPING:
            assert ev.TearDown() in self.todo
        if session.exposed_ms is not None and session.state in LIVE:
            assert self.now_ms - session.exposed_ms <= EXPOSED_MAX_MS + 1000
        if session.closed:
            assert session.state in ENDED and session.final_signed and session.claim is None

    @invariant()
    def records_form_a_chain(self) -> None:
        issued = self.session.issued
        for earlier, later in itertools.pairwise(issued):
            assert later.seq == earlier.seq + 1 and later.due_nano >= earlier.due_nano
            assert self.claimed(later.seq)["previous"] == earlier.id


SessionMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSessions = SessionMachine.TestCase


def test_the_table_is_the_drawing_and_every_state_leads_to_an_end() -> None:
    reached = {REQUESTED}
    for _ in range(len(TRANSITIONS)):
        reached |= {target for (source, _), target in TRANSITIONS.items() if source in reached}
    assert set(ENDED) <= reached and reached == {*HOLDING, *ENDED, REQUESTED}
    assert all(source not in ENDED for source, _ in TRANSITIONS)
