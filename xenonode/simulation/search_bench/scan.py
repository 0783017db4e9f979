"""A scan of the most selective dimension: the range of one attribute is walked, and its leaves filter by all.

Tuned in its favour: aggregation points answer it and leaves are told the whole condition, so nothing is moved to be
thrown away; what it lacks are the zones of the other dimensions. A disjunction scans once a term.
"""

from __future__ import annotations

from dataclasses import replace

from summaries.asks import Ask
from summaries.filter import Filter
from summaries.messages import Answer, Read, Row
from summaries.plan import ranked
from summaries.query import Query, filter_of
from summaries.rank import Order
from summaries.schema import ENVIRONMENT, LOCATION
from summaries.trie import ROOT, Prefix
from xenonode.simulation.search_bench.network import Cost, IndexNetwork


def scan(network: IndexNetwork, query: Query, cost: Cost) -> set[int]:
    """Every id that matches. The caller sorts, cuts at the limit, and asks for the proofs."""
    whole, _ = filter_of(query)
    found: set[int] = set()
    for term in whole.terms:
        shares = ranked(network.schema, term)
        dimension = shares[0][1] if shares else "cores"
        own = tuple(test for test in term if _is_about(test, dimension))
        found |= {row.id for row in _walk(network, dimension, Filter((own,)), Filter((term,)), query.order, cost)}
    return found


def _is_about(test: object, dimension: str) -> bool:
    attribute = getattr(test, "attribute", LOCATION)
    if dimension == ENVIRONMENT:
        return str(attribute).split(".")[0] in ("os", "platform")
    return attribute == dimension


def _walk(network: IndexNetwork, dimension: str, own: Filter, whole: Filter, order: Order, cost: Cost) -> list[Row]:
    rows: list[Row] = []
    wave: list[tuple[Prefix, Filter, bytes | None]] = [(ROOT, own, None)]
    step = 1
    while wave:
        following: list[tuple[Prefix, Filter, bytes | None]] = []
        most_pages = 0
        for prefix, condition, holder in wave:
            answers = _read_all(network, dimension, Read(prefix, condition, order), holder, cost, step)
            most_pages = max(most_pages, len(answers))
            for answer in answers:
                rows += answer.rows
                following += [
                    (child.prefix, whole if child.leaves == 1 else own, child.holders[0]) for child in answer.children
                ]
        wave, step = following, step + min(most_pages, 2)  # further pages are asked for together
    return [row for row in rows if whole.matches(network.adverts.by_id[row.id].attributes)]


def _read_all(
    network: IndexNetwork, dimension: str, read: Read, holder: bytes | None, cost: Cost, step: int
) -> list[Answer]:
    answers: list[Answer] = []
    items = 0
    while not answers or items < answers[0].total:
        ask = Ask(1, dimension, read.prefix, replace(read, first=items), holder)
        reply = network.ask(ask, cost, step + bool(answers))  # all pages after the first are one round
        if not isinstance(reply, Answer):
            break
        answers.append(reply)
        items += len(reply.children) + len(reply.rows)
    return answers
