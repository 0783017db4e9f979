"""One page about a campaign: its runs, its faults by kind, and all figures, inside the file itself."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

from xenonode.simulation.campaign.plots import Drawn, Tables
from xenonode.simulation.verdict import Row

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body{{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}img{{max-width:100%}}
table{{border-collapse:collapse;font-size:85%;margin:1em 0}}td,th{{padding:.2em .6em;text-align:right;
border-bottom:1px solid #ccc}}figure{{margin:2em 0}}figcaption{{color:#444}}
</style></head><body><h1>{title}</h1><p>{shows}</p>{tables}{figures}</body></html>
"""
SHOWN = ("seed", "status", "virtual_s", "rpcs", "queries", "recall_mean", "search_ms_median", "search_ms_p95",
         "sessions", "sessions_settled", "paid_usd", "cpu_s", "trace")  # fmt: skip
FAULTS_SHOWN = ("seed", "kind", "planned", "struck", "bit")


def page(title: str, shows: str, tables: Tables, point_keys: Sequence[str], figures: Sequence[Drawn]) -> bytes:
    """The page, as HTML."""
    told = _table(tables["runs"], [*point_keys, *SHOWN])
    if tables["fault_kinds"]:
        told += _table(tables["fault_kinds"], [*point_keys, *FAULTS_SHOWN])
    images = "".join(
        f'<figure><img alt="{html.escape(each.title)}" src="data:image/png;base64,'
        f'{base64.b64encode(each.png).decode()}"><figcaption>{html.escape(each.caption)}</figcaption></figure>'
        for each in figures
    )
    return _PAGE.format(title=html.escape(title), shows=html.escape(shows), tables=told, figures=images).encode()


def _table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(_cell(row.get(name)))}</td>' for name in columns)}</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
