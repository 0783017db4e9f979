"""Work with guests that takes a while: launching, pausing, resizing, tearing down, reading the counters of all of them.

Decides nothing about sessions: it tells the session what happened, and the session's core says what follows. One
job a session at a time; jobs are tasks, sampling is one timer for all sessions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from dht.identity import Signer
from hypervisor.adapter import Ability, Handle, Hypervisor, Running
from hypervisor.environment import EnvironmentSpec
from hypervisor.environment import State as GuestState
from hypervisor.environment import Usage as Sample
from hypervisor.errors import HypervisorError, UnknownGuestError, UnsupportedError
from xenonode.env import Env
from xenonode.model.errors import ModelError
from xenonode.model.resources import Resources
from xenonode.server import session_events as ev
from xenonode.server.admission import Admission
from xenonode.server.errors import NotKeptError, RefusedError
from xenonode.server.launching import guest_name, specification, start_record
from xenonode.server.metering import Instant
from xenonode.server.session_state import STARTING, Session
from xenonode.server.steady import SteadyClock

logger = logging.getLogger("xenonode.server.guests")
BOOT_TIMEOUT_S = 300.0
"""A full system with cloud-init took 48 s to ssh on a quiet machine under emulation; busy ones get five times that."""
READ_TIMEOUT_S = 10.0
RETRY_MIN_S, RETRY_MAX_S = 1.0, 30.0
Apply = Callable[[bytes, ev.Event], Awaitable[Session]]
StartGuest = Callable[[Hypervisor, EnvironmentSpec], Awaitable[Handle]]


class Guests:
    """The guests of one server's sessions."""

    def __init__(
        self,
        env: Env,
        signer: Signer,
        hypervisor: Hypervisor,
        admission: Admission,
        clock: SteadyClock,
        run: int,
        apply: Apply,
        start_guest: StartGuest,
    ) -> None:
        self._env, self._signer, self._hypervisor, self._admission = env, signer, hypervisor, admission
        self._clock, self._run, self._apply, self._start_guest = clock, run, apply, start_guest
        self._jobs: dict[bytes, tuple[str, asyncio.Task[None]]] = {}

    def instant(self) -> Instant:
        """Now, for the meter."""
        return Instant(self._run, self._clock.monotonic_ms(), self._env.now_ms())

    def launch(self, id: bytes) -> None:
        """Begin to launch a session's guest, unless that is under way."""
        if id not in self._jobs:
            self._begin(id, "launch", lambda: self._launch(id))

    def tear_down(self, id: bytes) -> None:
        """Begin to remove a session's guest, ending a launch that is under way."""
        kind, job = self._jobs.get(id, ("", None))
        if kind == "tear down":
            return
        if job is not None and job is not asyncio.current_task():
            job.cancel()
        self._begin(id, "tear down", lambda: self._tear_down(id, job))

    async def read(self, ids: Sequence[bytes]) -> dict[bytes, ev.Reading]:
        """Readings of these sessions' guests; one that is not there is left out. Raises HypervisorError."""
        if not ids:
            return {}
        async with asyncio.timeout(READ_TIMEOUT_S):
            usage = await self._hypervisor.usage([guest_name(id) for id in ids])
        at = self.instant()
        return {id: ev.Reading(usage[guest_name(id)], at) for id in ids if guest_name(id) in usage}

    async def read_one(self, id: bytes) -> ev.Reading | None:
        """A reading of one guest, None where there is none to be had."""
        try:
            return (await self.read([id])).get(id)
        except (HypervisorError, OSError):  # a time-out is one
            return None

    async def found(self) -> dict[str, Running]:
        """All guests of ours that the hypervisor has, by name. Raises HypervisorError."""
        return {running.handle.id: running for running in await self._hypervisor.reconcile()}

    async def remove(self, name: str) -> Sample | None:
        """Destroy a guest that may or may not be there. Raises HypervisorError."""
        try:
            return await self._hypervisor.destroy(name)
        except UnknownGuestError:
            return None

    async def bring(self, session: Session, order: ev.Order | None, wanted: GuestState) -> list[ev.Event]:
        """Bring the guest to `wanted`, running or paused; it may be there already after a restart.

        Raises RefusedError where a client's order fails; where there is none, the session's core orders it again.
        """
        name = guest_name(session.id)
        try:
            before = await self.read_one(session.id)
            if before is None or before.sample.state is not wanted:
                await (self._hypervisor.pause if wanted is GuestState.PAUSED else self._hypervisor.resume)(name)
        except HypervisorError as error:
            if isinstance(error, UnsupportedError) and order is None:
                return [ev.StopOrdered(f"{session.reason}; and this host cannot pause it")]
            return self._failed(session, order, error)
        reading = await self.read_one(session.id)
        return [ev.Paused(reading, order) if wanted is GuestState.PAUSED else ev.Resumed(reading, order)]

    async def resize(self, session: Session, wanted: Resources, order: ev.Order | None) -> list[ev.Event]:
        """Give the guest other resources. Raises RefusedError as `bring` does, and where they are not free."""
        now, name = session.resources, guest_name(session.id)
        refusals = self._admission.resize_refusals(session.id, wanted, self._env.now_ms()) if order else ()
        if refusals:
            raise RefusedError("; ".join(refusals), "ask for less", "capacity")
        most = Resources(*(max(each) for each in zip(now.amounts, wanted.amounts)))
        self._admission.keep(session.id, most)  # until it is known which of the two it has
        able = self._admission.capabilities.abilities
        # What does not change is asserted again where that is possible, and left alone where it is not.
        cpu = wanted.cpu_ms_per_s != now.cpu_ms_per_s or Ability.CPU_QUOTA in able
        memory = wanted.memory_bytes != now.memory_bytes or Ability.RESIZE_MEMORY in able
        try:
            await self._hypervisor.resize(
                name,
                cpu_ms_per_s=wanted.cpu_ms_per_s if cpu else None,
                memory_bytes=wanted.memory_bytes if memory else None,
            )
        except HypervisorError as error:
            self._admission.keep(session.id, now)
            return self._failed(session, order, error)
        return [ev.Resized(wanted, await self.read_one(session.id), order)]

    async def close(self) -> None:
        """End all jobs; guests go on."""
        jobs = [job for _, job in self._jobs.values()]
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    def _begin(self, id: bytes, kind: str, work: Callable[[], Awaitable[None]]) -> None:
        async def job() -> None:
            try:
                await work()
            except NotKeptError:
                pass  # told of where it happened; the next sample orders the same again
            finally:
                if self._jobs.get(id, ("", None))[1] is asyncio.current_task():
                    del self._jobs[id]

        self._jobs[id] = (kind, self._env.spawn(job(), f"{kind} {id.hex()[:8]}"))

    async def _launch(self, id: bytes) -> None:
        session = await self._apply(id, ev.LaunchBegan())
        if session.state != STARTING:
            return
        try:
            async with asyncio.timeout(BOOT_TIMEOUT_S):
                await self.remove(guest_name(id))  # one that a crash left half made
                seed = self._env.seed(f"ssh host key {id.hex()}")
                most = self._admission.offer.total.memory_bytes
                spec = specification(session, self._admission.capabilities, most, seed)
                handle = await self._start_guest(self._hypervisor, spec)
            reading = (await self.read([id]))[id]
        except HypervisorError as error:
            await self._apply(id, ev.BootFailed(str(error)))
            return
        except (TimeoutError, KeyError):
            await self._apply(id, ev.BootFailed(f"the environment did not answer within {BOOT_TIMEOUT_S:.0f} s"))
            return
        try:
            start = start_record(session, handle, self._clock.now_ms()).seal(self._signer)
        except ModelError as error:
            await self._apply(id, ev.BootFailed(f"the hypervisor says nothing usable of how to log in: {error}"))
            return
        await self._apply(id, ev.Booted(start.raw, reading))

    async def _tear_down(self, id: bytes, launch: asyncio.Task[None] | None) -> None:
        if launch is not None:
            await asyncio.gather(launch, return_exceptions=True)
        reading = await self.read_one(id)
        pause_s = RETRY_MIN_S
        while True:
            try:
                await self._stop_and_remove(guest_name(id))
                break
            except (HypervisorError, TimeoutError) as error:
                logger.warning("guest of session %s cannot be removed yet: %s", id.hex(), error)
                await asyncio.sleep(pause_s)
                pause_s = min(RETRY_MAX_S, 2 * pause_s)
        await self._apply(id, ev.Gone(reading))

    async def _stop_and_remove(self, name: str) -> None:
        try:
            await self._hypervisor.stop(name)
        except UnknownGuestError:
            return
        except HypervisorError as error:
            logger.info("guest %s did not power off: %s", name, error)
        await self.remove(name)

    def _failed(self, session: Session, order: ev.Order | None, error: HypervisorError) -> list[ev.Event]:
        if order is not None:
            raise RefusedError(error.message, error.next_step, error.code) from error
        logger.warning("session %s: the hypervisor failed, and is asked again: %s", session.id.hex(), error)
        return []
