"""One conversation from order to settlement, to be held on real sockets and in simulation; what it must tell is alike.

Whatever differs from run to run (ids, keys, times, how long a guest ran) is left out of what is told, and sums are
told as relations between them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from xenonode.client import Client, SignedQuote
from xenonode.errors import XenoError
from xenonode.model.advert import OfferedEnvironment
from xenonode.model.resources import Resources

SMALL = Resources(250, 2**29, 2**30, 1_000_000)
DEBIAN = OfferedEnvironment("os", "debian", "12")
QUERY = "memory.available >= 512 MiB and os.debian >= 12 order by price.cpu"
RECEIPT_PERIOD_MS = 1_000
RUN_S = 3.0


async def converse(client: Client, servers: int) -> list[Any]:
    """Order, search, quote, session, receipts, settlement; and two things that are refused."""
    told: list[Any] = []
    order = (await client.orders.place(client.orders.sign("5 USD")))["order"]
    found = await client.finding.search(QUERY)
    while len(found.servers) < servers:  # adverts are on their way
        await asyncio.sleep(0.5)
        found = await client.finding.search(QUERY)
    told.append(("found", len(found.servers), found.complete))
    best = found.servers[0].advert
    told.append(("told", str(best.advert.prices), str(best.advert.total), best.advert.region))
    refusal = await client.servers.quote(best.server_key, Resources(250, 2**50, 0, 0), DEBIAN, 600_000)
    told.append(("refused", [reason.split(":")[0] for reason in getattr(refusal, "reasons", ())]))
    quote = await client.servers.quote(best.server_key, SMALL, DEBIAN, 600_000)
    assert isinstance(quote, SignedQuote)
    told.append(("quoted", str(quote.quote.resources), str(quote.quote.prices)))
    view = await client.lease(order, quote, receipt_period_ms=RECEIPT_PERIOD_MS)
    told.append(("session", view.state, str(view.environment), str(view.resources)))
    try:
        await client.lease(order, quote, receipt_period_ms=RECEIPT_PERIOD_MS)
    except XenoError as error:
        told.append(("the same quote again", error.code))
    except Exception as error:
        told.append(("the same quote again", getattr(error, "code", type(error).__name__)))
    signing = asyncio.ensure_future(client.sessions.cosign(view.session))
    await asyncio.sleep(RUN_S)
    ended = await client.sessions.end(view.session)
    await signing
    told.append(("ended", ended.state, ended.closed))
    usage = await client.sessions.usage(view.session)
    assert usage is not None
    settlements = await client.sessions.settlements(view.session)
    state, statement = await client.orders.show(order), await client.orders.statement("USD")
    paid = sum(settlement.captured_nano for settlement in settlements)
    told.append(("usage", usage.final, usage.due_nano > 0, usage.usage.cpu_ns > 0))
    told.append(("settled", paid == usage.due_nano == state["captured_nano"], settlements[-1].final))
    told.append(("order", state["status"], state["reserved_nano"], state["released_nano"] == 5 * 10**9 - paid))
    told.append(("statement", statement.ringfenced_nano, statement.balance_nano == 1_000 * 10**9 - paid))
    return told
