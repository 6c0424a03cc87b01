"""`ratchet systems`: the systems and their events, printed from the declarations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from ratchet.cli.output import Json, print_json, print_table, say
from ratchet.home import opened
from ratchet.ledger.health import last_line
from ratchet.systems import System, registry
from ratchet.wording import duration


def systems(
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid graph, for documents.")] = False,
    as_json: Annotated[bool, Json] = False,
    forget: Annotated[
        str | None,
        typer.Option(metavar="SYSTEM", help="Forget a removed system, so that deployments do not wait for it."),
    ] = None,
) -> None:
    """List the installed systems: their hosts, the events that they consume and emit, and how often they sweep."""
    if forget is not None:
        with opened() as (_, ledger), ledger.write() as tx:
            registry.forget(tx, forget)
        say(f"{forget} is forgotten; a worker of it that starts registers it again.")
        return
    found = list(registry.systems().values())
    for name, trace in registry.broken().items():
        say(f"{name} cannot be imported: {last_line(trace)}: `ratchet doctor` shows the traceback", err=True)
    if as_json:
        print_json([as_values(system) for system in found])
    elif mermaid:
        say(graph(found).rstrip())
    else:
        rows = (
            (
                s.name,
                s.host,
                ", ".join(e.name for e in s.consumes),
                ", ".join(e.name for e in s.emits),
                duration(s.sweep_s),
            )
            for s in found
        )
        print_table(("system", "host", "consumes", "emits", ">sweep"), rows)


def graph(found: Iterable[System]) -> str:
    """A flowchart with one arrow from each system that emits events to each system that consumes them."""
    declared = list(found)
    lines = ["flowchart LR"]
    for host in sorted({system.host for system in declared}):
        lines.append(f'  subgraph host{host}["{host} host"]')
        lines += [f"    {system.name}" for system in declared if system.host == host]
        lines.append("  end")
    for emitter in declared:
        for consumer in declared:
            events = [event.name for event in emitter.emits if event in consumer.consumes]
            if events:
                lines.append(f'  {emitter.name} -- "{"<br/>".join(events)}" --> {consumer.name}')
    return "\n".join(lines) + "\n"


def table(found: Iterable[System]) -> str:
    """The same as a Markdown table."""
    lines = ["| system | host | does | consumes | emits | sweep |", "|---|---|---|---|---|---|"]
    for s in found:
        consumes = ", ".join(f"`{e.name}`" for e in s.consumes)
        emits = ", ".join(f"`{e.name}`" for e in s.emits)
        lines.append(f"| {s.name} | {s.host} | {s.purpose} | {consumes} | {emits} | {duration(s.sweep_s)} |")
    return "\n".join(lines) + "\n"


def as_values(system: System) -> dict[str, Any]:
    return {
        "name": system.name,
        "host": system.host,
        "purpose": system.purpose,
        "queue": system.queue,
        "consumes": [event.name for event in system.consumes],
        "emits": [event.name for event in system.emits],
        "sweep_s": system.sweep_s,
        "lanes": [lane.name for lane in system.lanes],
        "needs_torch": bool(system.preload),
    }
