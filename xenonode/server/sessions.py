"""The driver of sessions: carries the core's decisions to the hypervisor, the journal, the audit log and XenoCorp.

Decides only the order of things: the audit log and the journal are durable before anything else is done or shown.
Events of one session are taken one at a time. One timer samples all guests; a crash at any point is answered by
`start`, which finds sessions in the journal and guests at the hypervisor, and brings the two together.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

from dht.identity import Signer
from hypervisor import readiness
from hypervisor.adapter import Hypervisor
from hypervisor.environment import State as GuestState
from hypervisor.errors import HypervisorError
from xenonode.env import Env
from xenonode.model.entity import Trust
from xenonode.model.money import Claim, Reservation
from xenonode.model.session import Agreement, Amendment, Quote, Receipt, SessionCommand
from xenonode.server import session_events as ev
from xenonode.server.admission import Admission
from xenonode.server.agreement_check import agreement_faults
from xenonode.server.audit_log import AuditLog
from xenonode.server.claiming import ClaimPump
from xenonode.server.errors import NotKeptError, RefusedError
from xenonode.server.guests import Guests, StartGuest
from xenonode.server.journal import Journal
from xenonode.server.keeping import Keeper
from xenonode.server.launching import guest_name
from xenonode.server.ports import CorpPort
from xenonode.server.refusals import Refusals
from xenonode.server.releasing import Releases
from xenonode.server.relocating import Relocation
from xenonode.server.session_core import step
from xenonode.server.session_state import HOLDING, LIVE, Session, requested
from xenonode.server.steady import SteadyClock

logger = logging.getLogger("xenonode.server.sessions")
SAMPLE_PERIOD_S = 1.0
"""Reading CPU and network of a guest costs about 1.2 ms, so that a hundred guests take an eighth of a core."""
MISSES_MAX = 3
"""Readings in a row that a guest must be missing from before it is taken for gone."""
CONSOLE_MAX_BYTES = 16_384


class SessionManager:
    """All sessions of one server. Make it inside a running loop; then `start`, and `close` at the end."""

    def __init__(
        self,
        *,
        env: Env,
        signer: Signer,
        trust: Trust,
        hypervisor: Hypervisor,
        admission: Admission,
        journal: Journal,
        audit: AuditLog,
        corp: CorpPort,
        changed: Callable[[], None],
        start_guest: StartGuest = readiness.start,
    ) -> None:
        self._env, self._signer, self._trust, self._hypervisor = env, signer, trust, hypervisor
        self._admission, self._journal, self._audit, self._changed = admission, journal, audit, changed
        self._clock = SteadyClock(env.now_ms, asyncio.get_running_loop().time)
        self._sessions: dict[bytes, Session] = {}
        self._locks: dict[bytes, asyncio.Lock] = {}
        self._misses: dict[bytes, int] = {}
        self._orders: dict[bytes, ev.StopOrdered] = {}
        self._keeper = Keeper(journal, audit, self._clock.now_ms)
        run = journal.counter("run") + 1
        journal.count("run", run)
        self._guests = Guests(env, signer, hypervisor, admission, self._clock, run, self.apply, start_guest)
        self._relocation = Relocation(env, signer, self._guests.found, lambda: self._sessions, self._apply_if_free)
        self._releases = Releases(journal, signer, env.now_ms)
        self._refusals = Refusals(audit, "agreement_refused")
        self._pump = ClaimPump(
            corp,
            trust,
            lambda: self._sessions,
            self.apply,
            self._releases,
            wall_ms=env.now_ms,
            rng=env.rng("server.claims"),
        )
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def sessions(self) -> Mapping[bytes, Session]:
        """Every session that this server remembers, by id."""
        return self._sessions

    @property
    def claims_wait_ms(self) -> int:
        """How long claims wait before the next try; 0 while XenoCorp answers."""
        return self._pump.retry_ms

    async def start(self) -> None:
        """Find sessions and guests again, and begin to work. Raises HypervisorError where there is no hypervisor."""
        self._sessions = dict(self._journal.sessions)
        for session in self._sessions.values():
            self._keep_capacity(session)
        found = await self._guests.found()
        explained = {guest_name(id) for id, session in self._sessions.items() if session.state in HOLDING}
        for name in sorted(found):
            if name not in explained:
                self._audit.add("orphan_destroyed", b"", {"guest": name}, self._clock.now_ms())
                await self._guests.remove(name)
        open_ids = [id for id, session in self._sessions.items() if not session.closed]
        readings = await self._guests.read([id for id in open_ids if guest_name(id) in found])
        for id in open_ids:
            running = found.get(guest_name(id))
            shares = (None, None) if running is None else (running.cpu_ms_per_s, running.memory_bytes)
            await self.apply(id, ev.Restarted(readings.get(id), *shares))
        if not await self._relocation.tell(found):
            self._relocation.begin()
        self._tasks = [
            self._env.spawn(self._sample_for_ever(), "sample sessions"),
            self._env.spawn(self._pump.run(), "send claims"),
        ]

    def relocate(self) -> None:
        """This server is reached elsewhere: say anew, signed, where each guest is."""
        self._relocation.begin()

    async def close(self) -> None:
        """Stop working; guests go on, and `start` of a later run finds them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._relocation.close()
        await self._guests.close()

    async def create(self, client: bytes, agreement_raw: bytes, reservation_raw: bytes, quote_raw: bytes) -> Session:
        """Sign the client's agreement and begin to launch. Raises RefusedError with all that is wrong with it.

        What is refused gives up its reservation, so that the client has its money back for another server, and the
        capacity that its quote held, so that others have that.
        """
        try:
            return await self._create(client, agreement_raw, reservation_raw, quote_raw)
        except Exception:
            self._admission.release(quote_raw, client)
            try:
                self._give_up(client, reservation_raw)
            except Exception as error:  # the refusal itself is what the client must hear
                logger.info("a refused agreement's reservation is not given up: %s", error)
            raise

    async def _create(self, client: bytes, agreement_raw: bytes, reservation_raw: bytes, quote_raw: bytes) -> Session:
        scheme, wall_ms = self._trust.scheme, self._env.now_ms()
        agreement, envelope = Agreement.open(agreement_raw, scheme, signed_by=client)
        if envelope.id in self._sessions:
            return self._sessions[envelope.id]
        quote, quote_envelope = Quote.open(quote_raw, scheme, signed_by=self._signer.public_key)
        reservation, reservation_envelope = Reservation.open(reservation_raw, scheme)
        self._trust.issued(reservation_envelope, wall_ms)
        faults = agreement_faults(
            agreement,
            reservation,
            reservation_envelope.id,
            quote,
            quote_envelope.id,
            client=client,
            server=self._signer.public_key,
            offer=self._admission.offer,
            now_ms=wall_ms,
        )
        if self._admission.held(quote_envelope.id, client, wall_ms) is None:
            faults = (*faults, "the quote's capacity is not held; ask for another quote")
        if any(session.agreement.reservation == reservation_envelope.id for session in self._sessions.values()):
            faults = (*faults, "the reservation pays for another session")
        if self._releases.is_spent(reservation_envelope.id):
            faults = (*faults, "the reservation is used up or was given up; reserve again")
        if faults:
            self._refusals.note(envelope.id, client, faults, wall_ms)
            raise RefusedError("; ".join(faults), "ask for a new quote and sign what it says", "agreement")
        offered = self._admission.offer.find(agreement.environment)
        image = "" if offered is None else offered.image
        now_ms = self._clock.now_ms()
        session = requested(envelope.id, agreement, reservation, agreement_raw, image, now_ms)
        self._sessions[session.id] = session
        try:
            self._admission.agree(quote_envelope.id, session.id, agreement.resources)
            return await self.apply(session.id, ev.Validated(agreement.seal(self._signer).raw))
        except BaseException:
            if self._sessions[session.id] is session:  # nothing became durable, so it never was
                self._forget(session.id)
                self._admission.keep(session.id, None)
            raise

    def withdraw(self, client: bytes, reservation_raw: bytes) -> None:
        """Give up a reservation that its client wants for no session here any more. Raises RefusedError."""
        if not self._give_up(client, reservation_raw):
            raise RefusedError("a session uses this reservation", "see 'session list', and stop it", "state")

    def _give_up(self, client: bytes, reservation_raw: bytes) -> bool:
        """Whether the reservation is given up; not if a session uses it."""
        reservation, envelope = Reservation.open(reservation_raw, self._trust.scheme)
        self._trust.issued(envelope, self._env.now_ms())
        if (reservation.client, reservation.server) != (client, self._signer.public_key):
            raise RefusedError("the reservation is not between you and this server", "reserve for this server", "other")
        if any(session.agreement.reservation == envelope.id for session in self._sessions.values()):
            return False
        self._releases.give_up(envelope.id, reservation)
        self._pump.wake()
        return True

    async def command(self, client: bytes, raw: bytes) -> bytes:
        """Carry out a client's signed command; the signed amendment. Raises RefusedError."""
        command, envelope = SessionCommand.open(raw, self._trust.scheme, signed_by=client)
        self.session(client, command.agreement)
        session = await self.apply(command.agreement, ev.Commanded(command, envelope.id))
        if session.amendment is None or session.command != envelope.id:
            raise RefusedError(f"the session is {session.state}", "look at it with 'session show'", "state")
        return session.amendment

    async def receipt(self, client: bytes, raw: bytes) -> Session:
        """Take in a client's receipt. Raises RefusedError."""
        receipt, _ = Receipt.open(raw, self._trust.scheme, signed_by=client)
        self.session(client, receipt.agreement)
        return await self.apply(receipt.agreement, ev.Receipted(receipt, raw))

    async def console(self, client: bytes, id: bytes) -> str:
        """The end of what the environment wrote to its console. Raises RefusedError."""
        session = self.session(client, id)
        self._audit.add("console", id, {"client": client}, self._clock.now_ms())
        try:
            text = await self._hypervisor.console(guest_name(session.id), max_bytes=CONSOLE_MAX_BYTES)
        except HypervisorError as error:
            raise RefusedError(error.message, error.next_step, error.code) from error
        return text.decode("utf-8", "replace")

    async def stop(self, id: bytes, reason: str) -> Session:
        """End a session by the owner's order, whoever's it is. Raises RefusedError where there is none.

        Where the disk takes no writes, the guest goes at once, which may make the room that is missing; the order waits
        in memory until it can be written down, and is lost if the server restarts before.
        """
        if id not in self._sessions:
            raise RefusedError("there is no such session here", "see 'xenonode server sessions'", "unknown_session")
        order = ev.StopOrdered(reason, by_owner=True)
        try:
            return await self.apply(id, order)
        except NotKeptError as error:
            if self._sessions[id].state not in HOLDING:
                raise
            self._orders[id] = order
            self._guests.tear_down(id)
            message = "the environment is being removed; that the session ended waits for a disk that takes writes"
            next_step = "make room on this server's disk; if the server restarts before that, stop it again"
            raise RefusedError(message, next_step, error.code) from error

    def session(self, client: bytes, id: bytes) -> Session:
        """A session of this client; another's is as unknown as one that never was. Raises RefusedError."""
        session = self._sessions.get(id)
        if session is None or session.agreement.client != client:
            raise RefusedError("you have no such session here", "see yours with 'session list'", "unknown_session")
        return session

    async def apply(self, id: bytes, event: ev.Event) -> Session:
        """Let an event happen to a session, with all that follows from it. Raises RefusedError."""
        async with self._locks.setdefault(id, asyncio.Lock()):
            if id not in self._sessions:  # while this waited
                raise RefusedError("the session is closed and forgotten", "see 'session list'", "unknown_session")
            events = deque([event])
            while events:
                before = self._sessions[id]
                session, effects = step(before, events.popleft(), self._clock.now_ms())
                self._keeper.keep(session, effects)
                self._sessions[id] = session
                self._keep_capacity(session)
                if session.claim not in (None, before.claim):
                    self._pump.wake()
                for effect in effects:
                    events.extend(await self._do(session, effect))
            session = self._sessions[id]
            if session.closed:
                self._forget_surplus()
            return session

    async def sample(self) -> None:
        """Read all guests once, and let time pass for every session."""
        ids = [id for id, session in self._sessions.items() if session.state in LIVE]
        readings: dict[bytes, ev.Reading] | None
        try:
            readings = await self._guests.read(ids)
        except (HypervisorError, OSError) as error:
            logger.warning("guests cannot be read: %s", error)
            readings = None
        for id in [id for id, session in self._sessions.items() if not session.closed]:
            if id not in self._sessions or self._is_busy(id):
                continue  # the next sample counts what this one does not
            order = self._orders.get(id)
            if await self._apply_or_later(id, order or self._observed(id, ids, readings)) and order is not None:
                self._orders.pop(id, None)

    def _is_busy(self, id: bytes) -> bool:
        """Whether a slow command holds the session, for which the others do not wait."""
        lock = self._locks.get(id)
        return lock is not None and lock.locked()

    async def _apply_if_free(self, id: bytes, event: ev.Event) -> bool:
        return not self._is_busy(id) and await self._apply_or_later(id, event)

    async def _apply_or_later(self, id: bytes, event: ev.Event) -> bool:
        """Whether it happened: whatever is wrong with one session, the others are looked after."""
        try:
            await self.apply(id, event)
            return True
        except NotKeptError:
            pass  # told of where it happened; decided anew at the next sample
        except RefusedError as error:
            logger.info("session %s could not be brought up to date: %s", id.hex(), error)
        except Exception:
            logger.exception("session %s could not be brought up to date", id.hex())
        return False

    def _observed(self, id: bytes, asked: list[bytes], readings: Mapping[bytes, ev.Reading] | None) -> ev.Event:
        if readings is None or id not in asked:
            return ev.Tick()
        if id in readings:
            self._misses.pop(id, None)
            return ev.Sampled(readings[id])
        self._misses[id] = self._misses.get(id, 0) + 1
        return ev.Vanished() if self._misses[id] >= MISSES_MAX else ev.Tick()

    async def _sample_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_PERIOD_S)
            await self.sample()

    def _forget_surplus(self) -> None:
        """Closed sessions need not be kept for ever; what paid for one is remembered first, lest it pay again."""
        for id in self._journal.surplus:
            old = self._sessions[id]
            try:
                self._releases.use_up(old.agreement.reservation, old.reservation)
                self._journal.forget(id)
            except NotKeptError:
                return  # tried again when the next one closes
            self._forget(id)

    def _forget(self, id: bytes) -> None:
        for books in (self._sessions, self._locks, self._misses, self._orders):
            books.pop(id, None)
        self._keeper.forget(id)

    def _keep_capacity(self, session: Session) -> None:
        self._admission.keep(session.id, session.resources if session.state in HOLDING else None)

    async def _do(self, session: Session, effect: ev.Effect) -> list[ev.Event]:
        """Carry out one effect; the events that its completion is."""
        match effect:
            case ev.Launch():
                self._guests.launch(session.id)
            case ev.TearDown():
                self._guests.tear_down(session.id)
            case ev.PauseGuest(order):
                return await self._guests.bring(session, order, GuestState.PAUSED)
            case ev.ResumeGuest(order):
                return await self._guests.bring(session, order, GuestState.RUNNING)
            case ev.ResizeGuest(resources, order):
                return await self._guests.resize(session, resources, order)
            case ev.SignAmendment(order):
                amendment = Amendment(session.id, order.id, session.resources, session.state, self._clock.now_ms())
                return [ev.Amended(amendment.seal(self._signer).raw, order)]
            case ev.SignUsage(record):
                record = replace(record, log_head=self._audit.head)
                envelope = record.seal(self._signer)
                return [ev.UsageSigned(record, envelope.id, envelope.raw)]
            case ev.MakeClaim():
                claim = Claim(
                    reservation=session.agreement.reservation,
                    agreement=session.server_agreement,
                    client_agreement=session.client_agreement,
                    usage=effect.usage,
                    receipt=effect.receipt,
                    final=effect.final,
                ).seal(self._signer)
                return [ev.ClaimMade(claim.id, claim.raw, effect)]
            case ev.GiveUp():
                with self._keeper.watched(session.id):
                    try:
                        self._releases.give_up(session.agreement.reservation, session.reservation)
                    except NotKeptError:
                        raise
                    except RefusedError as error:
                        logger.warning("session %s keeps its reservation: %s", session.id.hex(), error.message)
                self._pump.wake()
                return [ev.GaveUp()]
            case ev.Advertise():
                self._changed()
            case ev.Refuse(code, message, next_step):
                raise RefusedError(message, next_step, code)
        return []
