"""The demonstration's story: one real request through the whole platform, step by step, each step checked.

    found XenoCorp > 8 XenoServers join > client registers > order > search = oracle > quote > reserve > agree
    > boot > ssh > a second session beside it > both keep their CPU share > resize > pause > stop > books agree

Decides the order and what must hold; does nothing itself that a user could not do with the same client.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from summaries.query import Near, Query
from xenonode import audit_check, config, membership
from xenonode.client import Client, Operator, SessionView, SignedQuote
from xenonode.control.client import connect
from xenonode.demo.network import DemoNetwork
from xenonode.demo.oracle import Wish, expected
from xenonode.demo.plan import RECEIPT_PERIOD_S, DemoPlan
from xenonode.demo.processes import run_inside
from xenonode.env import LiveEnv
from xenonode.errors import XenoError
from xenonode.home import LiveHome
from xenonode.membership import read_network
from xenonode.model.advert import Advert, Location, OfferedEnvironment, VerifiedAdvert
from xenonode.model.money import Settlement, Statement, format_amount
from xenonode.model.resources import Resources, Usage
from xenonode.model.session import Refusal, UsageRecord
from xenonode.search.searching import SearchAnswer
from xenonode.server.audit_log import NAME as AUDIT_LOG

MIB = 2**20
SESSION = Resources(120, 192 * MIB, 32 * MIB, 1_000_000)
GROWN = Resources(150, 160 * MIB, 32 * MIB, 1_000_000)
"""After the resize: more CPU, and memory given back to the host."""
LEASE_MS = 15 * 60_000
CREDIT, ORDER = "25 USD", "2 USD"
QOS_WINDOW_S = 10.0
NEAR_MS = 500
"""All of one machine, however busy: a loaded one showed its servers more than 50 ms apart."""
QOS_TOLERANCE = 0.10
BURN_CPU = "setsid sh -c 'while :; do :; done' </dev/null >/dev/null 2>&1 &"
BURN_MEMORY = "dd if=/dev/zero of=/tmp/ballast bs=1M count=48 2>/dev/null; ls -l /tmp/ballast | awk '{print $5}'"
FILL_DISK = "dd if=/dev/urandom of=/mnt/data bs=64k count=64 2>/dev/null; sync; ls -l /mnt/data | awk '{print $5}'"
USAGE_TIMEOUT_S = 60.0
SEEN_TIMEOUT_S = 30.0
"""An advert that changed is published within a second or two; on a busy machine it may take ten."""
COMPARISONS_MAX = 30
COMPARISON_PAUSE_S = 1.0
"""Where eight servers have just started on a busy machine, the first round trips, and so the coordinates that `near`
compares, are far too long; they settle within seconds."""


@dataclass(slots=True)
class Outcome:
    """What happened, as the last line of `--json` has it."""

    servers: int = 0
    dimensions: int = 0
    adverts: int = 0
    search: dict[str, Any] = field(default_factory=dict)
    session: dict[str, Any] = field(default_factory=dict)
    qos: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, int] = field(default_factory=dict)
    bill: dict[str, Any] = field(default_factory=dict)
    ledger: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class Teller:
    """How the story is told: `step` begins a chapter, `say` adds a line, `table` shows rows."""

    def step(self, text: str) -> None:
        """A new chapter."""

    def say(self, text: str) -> None:
        """One line."""

    def table(self, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
        """A table."""


class Story:
    """One run. `tell` it, then look at `outcome`; `clean_up` leaves nothing behind, whatever happened."""

    def __init__(self, plan: DemoPlan, teller: Teller) -> None:
        self.plan, self.outcome = plan, Outcome()
        self._teller = teller
        self._env = LiveEnv()
        self._network = DemoNetwork(plan)
        self._open = AsyncExitStack()
        self._client: Client
        self._signing: list[asyncio.Task[None]] = []

    async def tell(self) -> None:
        """Everything, in order. Raises XenoError where something that must hold does not."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await self._start_network()
        await self._member()
        order = await self._order()
        wish, answer = await self._search()
        first = await self._session(answer, order, "first")
        await self._second_look(first, answer)
        second = await self._session(await self._client.finding.search(wish.text), order, "second")
        await self._neighbours(first, second)
        await self._changes(first)
        await self._ends(first, second, order)
        self.outcome.seconds = round(loop.time() - began_s, 1)

    # -- 1: the network ----------------------------------------------------------------------------------

    async def _start_network(self) -> None:
        teller, plan = self._teller, self.plan
        teller.step("XenoCorp founds a network and starts")
        await self._network.start_corp()
        teller.say(f"ledger, credentials and first seed at {plan.corp.control}")
        count = len(plan.servers)
        teller.step(f"{count} XenoServers register, join one DHT per dimension, and advertise")
        statuses = [process.status for process in await self._network.start_servers()]
        self.outcome.servers = count
        self.outcome.dimensions = int(statuses[0]["dimensions"])
        teller.say(f"{self.outcome.dimensions} dimensions, hypervisor: {statuses[0]['virtualisation']}")
        for notice in statuses[0].get("notices", []):
            teller.say(f"note: {notice}")

    # -- 2: money and search -----------------------------------------------------------------------------

    async def _member(self) -> None:
        self._teller.step("A client registers, and XenoCorp's operator credits its account")
        self._client = await Client.open(config.load(self.plan.client.config, "client"), self._env)
        self._open.push_async_callback(self._client.close)
        credential = await self._client.member.register()
        operator = await self._operator()
        balance = await operator.credit(credential.entity, CREDIT)
        self._teller.say(f"{credential.entity} has {format_amount(balance, 'USD')}")

    async def _operator(self) -> Operator:
        operator = await Client.open_operator(config.load(self.plan.corp.config, "corp"), self._env)
        self._open.push_async_callback(operator.close)
        return operator

    async def _order(self) -> str:
        self._teller.step("The client makes a purchase order: XenoCorp ring-fences the money")
        orders = self._client.orders
        state = await orders.place(orders.sign(ORDER, expires_in_ms=4 * LEASE_MS))
        self._teller.say(f"order {state['order'][:12]}: {format_amount(state['free_nano'], state['currency'])} free")
        return str(state["order"])

    async def _search(self) -> tuple[Wish, SearchAnswer]:
        self._teller.step("The client searches over the DHTs' summaries")
        adverts, _ = await self._adverts()
        self.outcome.adverts = len(adverts)
        wish = _wish(adverts, (self.plan.corp.udp, self.plan.servers[-1].udp))
        self._teller.say(wish.text)
        for _ in range(COMPARISONS_MAX):
            before, acknowledged = await self._adverts()
            answer = await self._client.finding.search(wish.text)
            adverts, _ = await self._adverts()
            still = [each.advert.seq for each in before] == [each.advert.seq for each in adverts]
            if acknowledged and still and answer.servers:
                break  # nobody was publishing in between, so both looked at the same adverts
            await asyncio.sleep(COMPARISON_PAUSE_S)
        else:
            raise XenoError("the adverts never stood still", "this machine is very busy; try again later", "busy")
        right = expected(adverts, wish, hosts_of(answer.query))
        found = [each.advert.server_key for each in answer.servers]
        self._show(answer, wish)
        counts = answer.counts
        self.outcome.search = {
            "query": wish.text,
            "matches": len(found),
            "expected": len(right),
            "rpcs": counts.rpcs,
            "rounds": counts.rounds,
            "ms": round(answer.duration_ms, 1),
            "aps": counts.aggregation_points,
            "leaves": counts.leaves,
            "pruned": counts.pruned,
        }
        must(answer.complete, f"the answer is partial: {', '.join(answer.missing)}")
        must(found == right, f"the search found {len(found)} servers, a plain filter over all adverts {len(right)}")
        must(0 < len(found) < len(adverts), "the query should match some servers and not all")
        self._teller.say(
            f"{len(found)} of {len(adverts)} match, exactly those of a plain filter over all adverts; "
            f"{counts.rpcs} RPCs in {counts.rounds} rounds, {answer.duration_ms:.0f} ms, "
            f"{counts.aggregation_points} aggregation points, {counts.leaves} leaves, {counts.pruned} pruned"
        )
        return wish, answer

    async def _adverts(self) -> tuple[list[VerifiedAdvert], bool]:
        """Every server's current advert, from the server itself over its control connection, and whether holders in
        all dimensions have acknowledged all of them: until then a search may still find what was before.
        """
        shown = await asyncio.gather(*(self._client.servers.shown_advert(place.control) for place in self.plan.servers))
        return [each.advert for each in shown], not any(each.pending for each in shown)

    def _show(self, answer: SearchAnswer, wish: Wish) -> None:
        columns = ("server", "owner", "region", "cpu free", "memory free", "price.cpu", "cost/h", "rtt")
        rows = []
        for each in answer.servers:
            advert = each.advert.advert
            rows.append(
                (
                    each.advert.server_key.hex()[:12],
                    each.advert.credential.entity,
                    advert.region,
                    f"{advert.available.cpu_ms_per_s} ms/s",
                    f"{advert.available.memory_bytes // MIB} MiB",
                    format_amount(advert.prices.cpu_nano_per_hour, advert.prices.currency),
                    format_amount(_cost_nano(advert, wish.session), advert.prices.currency),
                    "-" if each.rtt_ms is None else f"{each.rtt_ms:.1f} ms",
                )
            )
        self._teller.table(columns, rows)

    # -- 3: sessions -------------------------------------------------------------------------------------

    async def _session(self, answer: SearchAnswer, order: str, which: str) -> SessionView:
        self._teller.step(f"The {which} session: quote, reservation, agreement, boot")
        loop = asyncio.get_running_loop()
        quote = await self._quote(answer)
        began_s = loop.time()
        view = await self._client.lease(
            order,
            quote,
            hostname=f"{which}-session",
            receipt_period_ms=RECEIPT_PERIOD_S * 1000,
            progress=self._teller.say,
        )
        booted_s = loop.time()
        signing = self._client.sessions.cosign(view.session, tell=self._teller.say)
        self._signing.append(self._env.spawn(signing, "sign usage"))
        uname = await self._inside(view, "uname -a")
        logged_in_s = loop.time()
        self._teller.say(f"inside: {uname}")
        if which == "first":
            kernel = await self._inside(view, "uname -r")
            self.outcome.session = {
                "server": view.server.hex(),
                "adapter": await self._adapter(view),
                "environment": view.environment,
                "boot_s": round(booted_s - began_s, 1),
                "ssh_s": round(logged_in_s - booted_s, 1),
                "kernel": kernel,
            }
            must(kernel in uname, "the guest names two kernels")
            written = int(await self._inside(view, FILL_DISK))
            self._teller.say(f"{written // 1024} KiB written to its disk")
        return view

    async def _quote(self, answer: SearchAnswer) -> SignedQuote:
        """A quote from the best server that says yes; the next one in rank is asked where one refuses."""
        for found in answer.servers:
            linux = next(each for each in found.advert.advert.environments if each.name == "linux")
            environment = OfferedEnvironment(linux.kind, linux.name, linux.version)
            quote = await self._client.servers.quote(found.advert.server_key, SESSION, environment, LEASE_MS)
            if isinstance(quote, Refusal):
                self._teller.say(f"{found.advert.server_key.hex()[:12]} refuses: {'; '.join(quote.reasons)}")
                continue
            self._teller.say(f"{quote.server.hex()[:12]} quotes {environment}")
            return quote
        raise XenoError("every server that was found refuses", "run the demonstration again", "refused")

    async def _adapter(self, view: SessionView) -> str:
        return str((await self._client.servers.status(view.server))["hypervisor"]).split("?")[0]

    async def _inside(self, view: SessionView, command: str) -> str:
        """Run a command in the guest by the system's own ssh client."""
        return await run_inside(await self._client.ssh_command(view.session), command)

    async def _second_look(self, first: SessionView, before: SearchAnswer) -> None:
        self._teller.step("The server's advert shows less available, and a search sees it")
        # Not always the best in rank: that one may have refused.
        server = next(each.advert for each in before.servers if each.advert.server_key == first.server)
        had = server.advert.available.cpu_ms_per_s
        text = f"cpu.available <= {had - SESSION.cpu_ms_per_s} ms/s and cpu.total >= {SESSION.cpu_ms_per_s} ms/s"
        deadline_s = asyncio.get_running_loop().time() + SEEN_TIMEOUT_S
        while True:
            answer = await self._client.finding.search(text)
            if any(each.advert.server_key == server.server_key for each in answer.servers):
                break
            must(asyncio.get_running_loop().time() < deadline_s, f"no search saw the changed advert: {text}")
            await asyncio.sleep(0.5)
        self._teller.say(f"found by '{text}'")

    async def _neighbours(self, first: SessionView, second: SessionView) -> None:
        self._teller.step("Both sessions burn CPU, the second memory too; each keeps its agreed share")
        memory = await self._inside(second, BURN_MEMORY)
        await asyncio.gather(*(self._inside(each, BURN_CPU) for each in (first, second)))
        self._teller.say(f"the second holds {int(memory) // MIB} MiB of ballast in memory")
        measured = await asyncio.gather(*(self._cpu_ms_per_s(each.session) for each in (first, second)))
        agreed = SESSION.cpu_ms_per_s
        for which, found in zip(("first", "second"), measured):
            self._teller.say(f"{which}: agreed {agreed} ms/s, measured {found:.1f} ms/s over {QOS_WINDOW_S:.0f} s")
        self.outcome.qos = {
            "agreed_ms_per_s": agreed,
            "measured_ms_per_s": round(measured[0], 2),
            "neighbour_ms_per_s": round(measured[1], 2),
        }
        for found in measured:
            must(abs(found - agreed) <= QOS_TOLERANCE * agreed, f"{found:.1f} ms/s is not within 10 % of {agreed} ms/s")

    async def _cpu_ms_per_s(self, session: str) -> float:
        """CPU time per second between two of the server's signed usage records."""
        before = await self._usage(session, 0)
        after = await self._usage(session, before.until_ms + round(QOS_WINDOW_S * 1000))
        return (
            ((after.usage.cpu_ns or 0) - (before.usage.cpu_ns or 0)) / 1e6 / ((after.until_ms - before.until_ms) / 1e3)
        )

    async def _usage(self, session: str, from_ms: int) -> UsageRecord:
        """The next usage record that was signed now or later, and reaches to `from_ms` at least."""
        now_ms = max(from_ms, self._env.now_ms())
        deadline_s = asyncio.get_running_loop().time() + USAGE_TIMEOUT_S
        while (record := await self._client.sessions.usage(session)) is None or record.until_ms < now_ms:
            must(asyncio.get_running_loop().time() < deadline_s, "no new usage record was signed")
            await asyncio.sleep(0.2)
        return record

    # -- 4: changes and the end --------------------------------------------------------------------------

    async def _changes(self, view: SessionView) -> None:
        self._teller.step("The first session is resized, and paused for a moment")
        before = await self._memory_mib(view)
        resized = await self._client.sessions.command(view.session, "resize", GROWN)
        after = await self._memory_mib(view)
        self._teller.say(
            f"memory seen from inside: {before} MiB, then {after} MiB; CPU {resized.resources.cpu_ms_per_s} ms/s"
        )
        must(after < before, "the guest does not see less memory")
        must(resized.resources == GROWN, "the server says that the session has other resources")
        await self._client.sessions.command(view.session, "pause")
        paused = await self._usage(view.session, 0)
        later = await self._usage(view.session, paused.until_ms + 1)
        spent_ms = ((later.usage.cpu_ns or 0) - (paused.usage.cpu_ns or 0)) / 1e6
        resumed = await self._client.sessions.command(view.session, "resume")
        self._teller.say(
            f"paused: {spent_ms:.0f} ms of CPU in {(later.until_ms - paused.until_ms) / 1e3:.0f} s; then resumed"
        )
        must(spent_ms < 100, "a paused session goes on using CPU")
        must(resumed.state == "running", f"the session is {resumed.state} after it was resumed")

    async def _memory_mib(self, view: SessionView) -> int:
        return int(await self._inside(view, "awk '/MemTotal/ {print $2}' /proc/meminfo")) // 1024

    async def _ends(self, first: SessionView, second: SessionView, order: str) -> None:
        self._teller.step("Both sessions end: final usage, receipts, claims, settlement")
        ends = (self._client.sessions.end(view.session, self._teller.say) for view in (first, second))
        ended = await asyncio.gather(*ends)
        for view in ended:
            must(view.closed, f"session {view.session[:12]} was not settled in time")
        await asyncio.gather(*self._signing)
        record = await self._client.sessions.usage(first.session)
        must(record is not None and record.final, "the last usage record is not final")
        self.outcome.usage = {} if record is None else told_usage(record.usage)
        await self._books(order, [first, second])
        await self._logs(first)

    async def _books(self, order: str, views: list[SessionView]) -> None:
        self._teller.step("Every party's books agree")
        state = await self._client.orders.show(order)
        settlements = [each for view in views for each in await self._client.sessions.settlements(view.session)]
        captured = sum(each.captured_nano for each in settlements)
        statement = await self._client.orders.statement("USD")
        incomes = [await self._server_statement(server) for server in dict.fromkeys(view.server for view in views)]
        fees = sum(each.fee_nano for each in settlements)
        audit = await (await self._operator()).audit()
        self._bill(state, settlements)
        must(state["captured_nano"] == captured, "the order's captures are not the settlements' sum")
        must(state["captured_nano"] + state["released_nano"] == state["amount_nano"], "the order does not add up")
        must(state["status"] == "closed" and statement.ringfenced_nano == 0, "the order's rest was not released")
        must(sum(each.balance_nano for each in incomes) == captured - fees, "the servers' statements disagree")
        credited = sum(line.amount_nano for line in statement.lines if line.kind == "credit")
        must(statement.balance_nano == credited - captured, "the client's statement disagrees")
        must(bool(audit["balanced"]), "the ledger does not balance")
        self.outcome.bill = {
            "order": state["amount_nano"],
            "captured": captured,
            "released": state["released_nano"],
            "currency": state["currency"],
        }
        self.outcome.ledger = {
            "debits": audit["debits_nano"]["USD"],
            "credits": audit["credits_nano"]["USD"],
            "balanced": bool(audit["balanced"]),
        }
        self._teller.say("client, servers and XenoCorp agree; debits equal credits; captures stay within the order")

    def _bill(self, state: dict[str, Any], settlements: list[Settlement]) -> None:
        currency = state["currency"]
        names = ("amount", "captured", "released")
        rows = [(f"order: {name}", format_amount(state[f"{name}_nano"], currency)) for name in names]
        for each in settlements:
            kind = "final settlement" if each.final else "settlement"
            rows.append((f"{kind} {each.agreement.hex()[:12]}", format_amount(each.captured_nano, currency)))
        self._teller.table(("bill", "amount"), rows)

    async def _server_statement(self, server: bytes) -> Statement:
        """A server's own statement, fetched with its own key as its owner would."""
        place = self._network.server(server)
        home = LiveHome(place.folder, exclusive=False)
        papers = membership.stored(home)
        must(papers is not None, f"{place.name} holds no credential")
        assert papers is not None
        trust = read_network(papers.network, self._env.scheme, place.name)
        network = trust.network
        transport = home.transport(papers.certificate, [papers.authority])
        connection = await connect(*network.corp_control.pair, network.corp_key, transport=transport)
        try:
            raw = (await connection.call("statement", {"currency": "USD"}))["statement"]
        finally:
            await connection.close()
        found, envelope = Statement.open(raw, self._env.scheme)
        trust.issued(envelope, self._env.now_ms())
        return found

    async def _logs(self, view: SessionView) -> None:
        self._teller.step("The server's audit log is whole, and one flipped byte would be found")
        folder = self._network.server(view.server).folder / "state"
        verdict = audit_check.verify_folder(folder, view.server)
        must(verdict.sound, f"the audit log is not whole: {verdict.fault}")
        copy = self.plan.client.folder / "audit-copy"
        shutil.copytree(folder, copy)
        data = bytearray((copy / AUDIT_LOG).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / AUDIT_LOG).write_bytes(data)
        tampered = audit_check.verify_folder(copy, view.server)
        shutil.rmtree(copy)
        must(not tampered.sound, "a flipped byte was not found")
        self.outcome.audit = {"records": verdict.length, "sound": True, "flipped_byte": tampered.fault}
        self._teller.say(f"{verdict.length} records, sound; with one bit flipped: {tampered.fault}")

    # -- the end -----------------------------------------------------------------------------------------

    async def clean_up(self) -> None:
        """Stop every process, and destroy guests that a story which broke off left behind."""
        for task in self._signing:
            task.cancel()
        await asyncio.gather(*self._signing, return_exceptions=True)
        await self._open.aclose()
        await self._network.stop()


def told_usage(usage: Usage) -> dict[str, int]:
    """A bill's counters by short names: nanoseconds of CPU, byte-seconds of memory, bytes received and sent by the
    network, and bytes read from and written to the disk together. Raises XenoError where one was not measured."""
    disk_bytes = (usage.disk_read_bytes or 0) + (usage.disk_written_bytes or 0)
    measured = {
        "cpu_ns": usage.cpu_ns,
        "memory_byte_s": usage.memory_byte_s,
        "net_rx": usage.net_rx_bytes,
        "net_tx": usage.net_tx_bytes,
        "disk": None if usage.disk_read_bytes is None or usage.disk_written_bytes is None else disk_bytes,
    }
    missing = [name for name, value in measured.items() if value is None]
    must(not missing, f"this machine's hypervisor does not measure {', '.join(missing)}")
    return {name: value for name, value in measured.items() if value is not None}


def must(holds: bool, otherwise: str) -> None:
    """What the demonstration promises. Raises XenoError where it is not so."""
    if not holds:
        raise XenoError(
            f"the demonstration failed: {otherwise}", "run it with --keep and look at the logs", "demo_failed"
        )


def _wish(adverts: list[VerifiedAdvert], near: tuple[str, str]) -> Wish:
    """A query that some of these servers match: those at most as dear as the median, and one region besides."""
    prices = sorted(each.advert.prices.cpu_nano_per_hour for each in adverts)
    dearest = max(adverts, key=lambda each: each.advert.prices.cpu_nano_per_hour)
    linux = next(each.version for each in adverts[0].advert.environments if each.name == "linux")
    major, minor = (int(part) for part in linux.split("-")[0].split(".")[:2])
    distribution = next(each.name for each in adverts[0].advert.environments if each.name != "linux")
    return Wish(
        session=SESSION,
        memory_most_bytes=64 * 1024 * MIB,
        regions=(dearest.advert.region, "eu-west-2"),
        price_cpu_most_nano=prices[len(prices) // 2],
        linux_least=(major, minor),
        debian_or_ubuntu=distribution,
        near=near,
        near_ms=NEAR_MS,
        limit=8,
    )


def hosts_of(query: Query) -> list[Location]:
    """The coordinates that the search found for its hosts: an input to the query, not a part of the answer."""
    found, work = [], [query.where]
    while work:
        where = work.pop()
        if isinstance(where, Near):
            found += [Location(*host) for host in where.hosts if not isinstance(host, str)]
        work += getattr(where, "parts", ())
    return found


def _cost_nano(advert: Advert, session: Resources) -> int:
    prices = advert.prices
    memory = session.memory_bytes * prices.memory_nano_per_gib_hour // 2**30
    return session.cpu_ms_per_s * prices.cpu_nano_per_hour // 1000 + memory
