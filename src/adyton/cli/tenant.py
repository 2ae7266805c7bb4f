"""``adyton tenant`` and ``adyton organisation``: whose things there are, in which environment, under which rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click
import msgspec

from adyton.cli.administering import Noun, broker_options, open_admin
from adyton.cli.output import json_option, print_json, print_table, say
from adyton.client.people import People
from adyton.protocol.people import QUOTAS, ApprovalRules, PromotionBody, PromotionView, TenantBody, TenantView

_ENVIRONMENT = click.Choice(["development", "ci", "test", "pre-production", "production"])


@click.group(cls=Noun)
def tenant() -> None:
    """Make, list, show, set and delete tenants; promote from one to another.

    Until there is an organisation, a tenant comes into being when something is set for it.
    """


@tenant.command()
@click.argument("name")
@click.option("--organisation", default="", help="Whose it is [default: nobody's, so the broker's].")
@click.option("--environment", type=_ENVIRONMENT, default="production", show_default=True)
@broker_options
@json_option
def create(name: str, organisation: str, environment: str, as_json: bool, **options: Any) -> None:
    """Make the tenant NAME."""
    options["tenant"] = name
    with open_admin(**options) as admin:
        view = People(admin).make_tenant(TenantBody(organisation, environment))
    _said([view], as_json, one=True)


@tenant.command("list")
@broker_options
@json_option
def list_(as_json: bool, **options: Any) -> None:
    """List the tenants that you have to do with."""
    with open_admin(**options) as admin:
        _said(People(admin).list_tenants(), as_json)


@tenant.command()
@click.argument("name", required=False)
@broker_options
@json_option
def show(name: str | None, as_json: bool, **options: Any) -> None:
    """Show a tenant, its quotas and its approval rules."""
    options["tenant"] = name or options["tenant"]
    with open_admin(**options) as admin:
        view = People(admin).show_tenant()
    _said([view], as_json, one=True)
    if not as_json:
        for quota, allowed in sorted(view.quotas.items()):
            say(f"at most {allowed} {quota}")
        for rate in view.rates:
            say(f"at most {rate} requests a second, in each worker")
        if view.approvals.actions:
            rules = view.approvals
            say(f"{rules.needed} must agree, within {rules.hours} h, to: {', '.join(rules.actions)}, tenant, person")


@tenant.command("set")
@click.argument("name")
@click.option("--environment", type=_ENVIRONMENT, help="Another environment.")
@click.option("--organisation", help="Another organisation; empty for nobody's.")
@click.option("--approve", "actions", multiple=True, metavar="ACTION", help="What needs several people; repeatable.")
@click.option("--needed", type=int, default=2, show_default=True, help="How many, the one who asks among them.")
@click.option("--hours", type=int, default=72, show_default=True, help="How long a proposal waits.")
@click.option("--no-approvals", is_flag=True, help="Nothing needs several people any more.")
@click.option(
    "--rate-limit",
    "rates",
    multiple=True,
    metavar="CLASS=PER_SECOND[:BURST]",
    help="Instead of the broker's for this tenant, in each worker; all of them at once.",
)
@click.option("--no-rate-limits", is_flag=True, help="The broker's rates hold again.")
@broker_options
@json_option
def set_(  # noqa: PLR0917 -- click's options
    name: str,
    environment: str | None,
    organisation: str | None,
    actions: tuple[str, ...],
    needed: int,
    hours: int,
    no_approvals: bool,
    rates: tuple[str, ...],
    no_rate_limits: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Change what is set about the tenant NAME: one thing at a time."""
    options["tenant"] = name
    limited = bool(rates) or no_rate_limits
    if sum([environment is not None, organisation is not None, bool(actions) or no_approvals, limited]) != 1:
        raise click.UsageError(
            "give --environment, --organisation, --approve (or --no-approvals) or --rate-limit (or --no-rate-limits):"
            " one of them"
        )
    if (actions and no_approvals) or (rates and no_rate_limits):
        raise click.UsageError("an option and its opposite contradict each other")
    with open_admin(**options) as admin:
        people = People(admin)
        if environment is not None:
            view = people.set_environment(environment)
        elif organisation is not None:
            view = people.set_organisation(organisation)
        elif limited:
            view = people.set_rates(rates)
        else:
            view = people.set_approvals(ApprovalRules(actions, needed, hours))
    _said([view], as_json, one=True)


@tenant.command()
@click.argument("name")
@click.argument("quotas", nargs=-1, metavar="[NAME=NUMBER]...")
@broker_options
@json_option
def quota(name: str, quotas: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Set all quotas of the tenant NAME: resources, bytes, policies, references, keys. None given: no limits."""
    options["tenant"] = name
    wanted = {}
    for pair in quotas:
        key, _, value = pair.partition("=")
        if key not in QUOTAS or not (value.isascii() and value.isdigit() and len(value) < 20):
            raise click.UsageError(f"{pair}: NAME=NUMBER with a name of {', '.join(QUOTAS)}")
        wanted[key] = int(value)
    with open_admin(**options) as admin:
        view = People(admin).set_quotas(wanted)
    _said([view], as_json, one=True)


@tenant.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@broker_options
@json_option
def delete(name: str, yes: bool, as_json: bool, **options: Any) -> None:
    """Delete the tenant NAME with everything that is its, but its audit log. There is no way back."""
    options["tenant"] = name
    if not yes:
        click.confirm(f"delete {name} with all its secrets, for ever?", abort=True, err=True)
    with open_admin(**options) as admin:
        gone = People(admin).delete_tenant()
    if as_json:
        print_json(gone)
    else:
        say(f"deleted {name}: {gone['rows']} rows; its audit log is kept, its name is not given again")
        if not gone["erased"]:
            say("what it had opens no more; its bytes are overwritten as soon as nobody reads an older state")


@tenant.command()
@click.argument("source")
@click.argument("target")
@click.option("--policies", is_flag=True, help="Policies that are set in SOURCE.")
@click.option("--references", is_flag=True, help="Reference values that are in force in SOURCE.")
@click.option("--resource", "resources", multiple=True, metavar="URI", help="One secret, by name; repeatable.")
@click.option("--as-set-by-hand", is_flag=True, help="Take a provider's values without their provider and proof.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and do nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@broker_options
@json_option
def promote(  # noqa: PLR0917 -- click's options
    source: str,
    target: str,
    policies: bool,
    references: bool,
    resources: tuple[str, ...],
    as_set_by_hand: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Copy policies and reference values from SOURCE to TARGET, after showing what changes: all of it or nothing.

    What a provider published keeps its provider and proof if TARGET has that provider with the same keys.
    Secrets go only if each is named, and are released to nobody in TARGET until they are bound there.
    """
    options["tenant"] = target
    body = PromotionBody(source, policies, references, resources, as_set_by_hand=as_set_by_hand)
    with open_admin(**options) as admin:
        people = People(admin)
        plan = people.plan_promotion(body)
        if not as_json:
            _show_plan(plan)
        if not plan.steps:
            say(f"nothing to promote: {source} has none of it")
        elif not dry_run:
            if not yes:
                click.confirm(f"promote this from {source} to {target}?", abort=True, err=True)
            plan = people.promote(msgspec.structs.replace(body, expected=plan.digest))
    if as_json:
        print_json(msgspec.to_builtins(plan))
    elif plan.steps:
        say(f"promoted, sha256:{plan.digest}" if plan.done else f"not done (a dry run), sha256:{plan.digest}")


def _show_plan(plan: PromotionView) -> None:
    print_table(("what", "name", "change"), [(step.kind, step.name, step.change) for step in plan.steps])
    for step in plan.steps:
        if step.diff:
            say(f"\n{step.kind} {step.name}")
            say(step.diff)


def _said(views: Iterable[TenantView], as_json: bool, *, one: bool = False) -> None:
    views = list(views)
    if as_json:
        print_json(msgspec.to_builtins(views[0] if one else views))
        return
    print_table(
        ("tenant", "organisation", "environment", "resources", "policies", "references"),
        [
            (
                view.name,
                view.organisation or "-",
                view.environment,
                *(_used(view, name) for name in ("resources", "policies", "references")),
            )
            for view in views
        ],
    )


def _used(view: TenantView, name: str) -> str:
    allowed = view.quotas.get(name)
    return f"{view.used[name]} of {allowed}" if allowed is not None else str(view.used[name])


@click.group(cls=Noun)
def organisation() -> None:
    """Make, list and delete organisations. With the first one, tenants must be made before they are used."""


@organisation.command("create")
@click.argument("name")
@broker_options
@json_option
def make(name: str, as_json: bool, **options: Any) -> None:
    """Make the organisation NAME."""
    with open_admin(**options) as admin:
        view = People(admin).make_organisation(name)
    if as_json:
        print_json(msgspec.to_builtins(view))
    else:
        say(f"made {view.name}; give it tenants: adyton tenant create NAME --organisation {view.name}")


@organisation.command("list")
@broker_options
@json_option
def all_(as_json: bool, **options: Any) -> None:
    """List organisations and their tenants."""
    with open_admin(**options) as admin:
        views = People(admin).list_organisations()
    if as_json:
        print_json(msgspec.to_builtins(views))
    else:
        print_table(
            ("organisation", "since", "tenants"),
            [(view.name, view.created, ", ".join(view.tenants) or "-") for view in views],
        )


@organisation.command("delete")
@click.argument("name")
@broker_options
@json_option
def forget(name: str, as_json: bool, **options: Any) -> None:
    """Delete an organisation that has no tenants, with its people."""
    with open_admin(**options) as admin:
        People(admin).delete_organisation(name)
    if as_json:
        print_json({"deleted": name})
    else:
        say(f"deleted {name}")
