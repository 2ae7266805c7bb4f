"""A verdict as one page that needs nothing else: no script, no picture, no font from elsewhere.

Everything that comes from outside is escaped, and the page forbids itself to load or run anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from adyton import __version__
from adyton.cli.verdict import Verdict, difference, text
from adyton.rats.types import Check

_STYLE = """
:root { color-scheme: light dark; --good: #1a7f37; --bad: #c62828; --dim: #6b7280; --line: #d0d7de; }
@media (prefers-color-scheme: dark) { :root { --good: #4ac26b; --bad: #ff7b72; --dim: #9ca3af; --line: #3d444d; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h1 b.good { color: var(--good); } h1 b.bad { color: var(--bad); }
h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid var(--line); }
ul { list-style: none; padding-left: 1.2rem; border-left: 1px solid var(--line); margin: .3rem 0 .8rem .4rem; }
li { margin: .25rem 0; } .mark { font-weight: bold; } .good { color: var(--good); } .bad { color: var(--bad); }
.spec { color: var(--dim); font-size: .85rem; margin-left: .5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: .2rem 0 .4rem 1.6rem; }
dt { color: var(--dim); } dd { margin: 0; font-family: ui-monospace, monospace; font-size: .85rem; overflow-wrap: anywhere; }
.note { border-left: 4px solid var(--line); padding: .3rem .8rem; } .note.bad { border-color: var(--bad); color: inherit; }
details summary { cursor: pointer; } footer { color: var(--dim); font-size: .85rem; margin-top: 2rem; }
"""


def render(verdict: Verdict) -> str:
    """The page, as HTML."""
    word, meaning = verdict.headline
    kind = "good" if verdict.verified is not None else "bad"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{escape(word)}: {escape(text(verdict.file))}</title><style>{_STYLE}</style></head><body>",
        f'<h1><b class="{kind}">{escape(word)}</b>: {escape(meaning)}</h1>',
    ]
    error = verdict.error
    if error is not None:
        rows = [
            (name, str(value))
            for name, value in error.as_dict().items()
            if name in {"code", "field", "expected", "got", "spec"} and value is not None
        ]
        hint = f"<p>Hint: {escape(error.hint)}</p>" if error.hint else ""
        parts.append(f'<div class="note bad"><p>{escape(error.message)}</p>{_rows(rows)}{hint}</div>')
    parts += [f'<p class="note">{escape(warning)}</p>' for warning in verdict.warnings()]
    parts.append("<h2>Checks</h2>")
    for group, checks in verdict.groups():
        parts.append(f"<p><b>{escape(group)}</b></p>{_checks(checks)}")
    left_out = verdict.left_out()
    if left_out:
        parts.append(f"<h2>Not checked</h2>{_rows(left_out)}")
    parts.append(f"<h2>Verdict</h2>{_rows(verdict.facts())}")
    claims = verdict.claims(whole=False)
    if claims:
        parts.append(f"<h2>What the evidence says</h2>{_rows(claims)}")
        parts.append(f"<details><summary>all claims</summary>{_rows(verdict.claims(whole=True))}</details>")
        parts.append("<p>Authentic is not acceptable: compare measurement, debug and TCB with what you expect.</p>")
    parts.append(
        f"<footer>adyton {escape(__version__)} evidence verify --tee {escape(verdict.tee)}</footer></body></html>"
    )
    return "\n".join(parts) + "\n"


def _checks(checks: Sequence[Check]) -> str:
    items = []
    for check in checks:
        mark, kind = ("✓", "good") if check.ok else ("✗", "bad")
        items.append(
            f'<li><span class="mark {kind}">{mark}</span> {escape(check.id)}'
            f'<span class="spec">{escape(check.spec)}</span>{_rows(difference(check))}</li>'
        )
    return f"<ul>{''.join(items)}</ul>"


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return ""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows) + "</dl>"
