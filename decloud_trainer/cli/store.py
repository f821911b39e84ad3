"""``store``: chains of versions, looked at and kept in order."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import click

from decloud_trainer.cli.chains import (
    CHAIN,
    CODES,
    VERSION,
    metrics_text,
    opened_chain,
    printable,
    progress_line,
    version_json,
)
from decloud_trainer.cli.output import JSON_OPTION, print_json, print_pairs, print_table
from decloud_trainer.cli.store_content import checkout, diff, export, import_file, tensorboard
from decloud_trainer.errors import CorruptionError, SettingsError

if TYPE_CHECKING:
    from decloud_trainer.store.chain import Store
    from decloud_trainer.store.version import Version


@click.group()
def store() -> None:
    """Look at chains of versions: training states that are hash-linked and can be verified.

    CHAIN is a folder's path, s3://bucket/prefix, or a plain word for a chain in the data folder.
    VERSION is a number (5), a name (v0000000005) or a tag.
    """


@store.command(
    "list",
    epilog="\b\nExamples:\n  decloud-trainer store list experiments"
    "\n  decloud-trainer store list s3://models/prod --json" + CODES,
)
@CHAIN
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Most shown.")
@JSON_OPTION
def list_versions(chain: str, limit: int, as_json: bool) -> None:
    """List a chain's versions, the newest first."""
    opened = opened_chain(chain)
    shown = list(itertools.islice(opened.log(), limit))
    tags = opened.tags()
    if as_json:
        print_json([version_json(opened, version, tags) for version in shown])
        return
    if not shown:
        click.echo(f"{opened.where} has no versions yet")
        return
    print_table(
        ["Version", "", "Created (UTC)", "Size", "Metrics", "Message"],
        [_row(opened, version, tags) for version in shown],
    )
    if shown[-1].counter:
        click.echo(f"\n{shown[-1].counter} older ones (--limit)")


def _row(opened: Store, version: Version, tags: dict[str, int]) -> list[str]:
    named = ", ".join(name for name, counter in tags.items() if counter == version.counter)
    gone = "collected" if opened.is_collected(version) else ""
    return [
        f"{version.semantic_version} {version.name}",
        ", ".join(filter(None, (named, gone))),
        version.created[:19].replace("T", " "),
        f"{version.size / 1e6:,.2f} MB",
        metrics_text(version),
        printable(version.commit_message),
    ]


@store.command(epilog="\b\nExample:\n  decloud-trainer store log experiments" + CODES)
@CHAIN
@JSON_OPTION
def log(chain: str, as_json: bool) -> None:
    """Show every version with its hashes, the newest first."""
    opened = opened_chain(chain)
    tags = opened.tags()
    if as_json:
        print_json([version_json(opened, version, tags) for version in opened.log()])
        return
    for version in opened.log():
        print_pairs(_facts(opened, version, tags))
        click.echo()


@store.command(
    epilog="\b\nExamples:\n  decloud-trainer store show experiments 5"
    "\n  decloud-trainer store show experiments release-1 --json" + CODES
)
@CHAIN
@VERSION
@JSON_OPTION
def show(chain: str, version: str, as_json: bool) -> None:
    """Show one version's record."""
    opened = opened_chain(chain)
    found, tags = opened.get_version(version), opened.tags()
    if as_json:
        print_json(version_json(opened, found, tags))
    else:
        print_pairs(_facts(opened, found, tags))


def _facts(opened: Store, version: Version, tags: dict[str, int]) -> dict[str, str]:
    named = ", ".join(name for name, counter in tags.items() if counter == version.counter)
    gone = ", given up by a garbage collection" if opened.is_collected(version) else ""
    return {
        "Version": f"{version.semantic_version} ({version.name})",
        "Hash": version.hash,
        "Parent": version.parent_hash or "none: the first",
        "Content": f"{version.content_hash}, {version.size:,} bytes{gone}",
        "Created": f"{version.created[:19].replace('T', ' ')} UTC",
        "Tags": named or "-",
        "Metrics": metrics_text(version) or "-",
        "Message": printable(version.commit_message),
    }


@store.command(epilog="\b\nExample:\n  decloud-trainer store tag prod 12 release-1.2" + CODES)
@CHAIN
@VERSION
@click.argument("name")
@JSON_OPTION
def tag(chain: str, version: str, name: str, as_json: bool) -> None:
    """Name a version; a garbage collection then leaves it alone."""
    opened = opened_chain(chain)
    found = opened.get_version(version)
    opened.tag(name, found)
    if as_json:
        print_json(version_json(opened, found, opened.tags()))
    else:
        click.echo(f"{found.name} of {opened.where} is {name} now")


@store.command(epilog="\b\nExample:\n  decloud-trainer store untag prod release-1.2" + CODES)
@CHAIN
@click.argument("name")
@JSON_OPTION
def untag(chain: str, name: str, as_json: bool) -> None:
    """Take a version's name away; the version stays."""
    opened = opened_chain(chain)
    opened.untag(name)
    if as_json:
        print_json({"chain": opened.where, "removed": name, "tags": opened.tags()})
    else:
        click.echo(f"{opened.where} has no tag {name} any more")


@store.command(
    epilog="\b\nExamples:\n  decloud-trainer store verify prod"
    "\n  decloud-trainer store verify s3://models/prod --json" + CODES
)
@CHAIN
@JSON_OPTION
def verify(chain: str, as_json: bool) -> None:
    """Hash everything anew; check records, links, counters, HEAD and tags."""
    from decloud_trainer.store.verify import problems

    opened = opened_chain(chain)
    found = list(problems(opened, each=progress_line("verified", as_json)))
    head = None if found else opened.get_head()
    count = 0 if head is None else head.counter + 1
    if as_json:
        told = [{"version": each.name, "problem": each.message} for each in found]
        print_json({"chain": opened.where, "sound": not found, "problems": told})
    else:
        for each in found:
            click.echo(f"{each.name}: {each.message}")
    if found:
        raise CorruptionError(
            f"{opened.where} is damaged: {len(found)} problems, the first in {found[0].name}",
            hint="copy the versions before it elsewhere, or restore the chain from a copy",
        )
    if not as_json:
        newest = f", HEAD {head.hash}" if head is not None else ""
        click.echo(f"{opened.where} is sound: {count} versions{newest}")


@store.command(
    "find-corruption",
    epilog="\b\nExample:\n  decloud-trainer store find-corruption prod --json" + CODES,
)
@CHAIN
@JSON_OPTION
def find_corruption(chain: str, as_json: bool) -> None:
    """Name the first bad version, and stop there."""
    from decloud_trainer.store.verify import problems

    opened = opened_chain(chain)
    first = next(problems(opened, each=progress_line("verified", as_json)), None)
    if as_json:
        told = None if first is None else {"version": first.name, "problem": first.message}
        print_json({"chain": opened.where, "first": told})
    if first is not None:
        raise CorruptionError(
            f"the first bad version of {opened.where} is {first.name}: {first.message}",
            hint="`store copy` brings the versions before it to another place",
        )
    if not as_json:
        click.echo(f"{opened.where} has no bad version")


@store.command(
    epilog="\b\nExamples:\n  decloud-trainer store gc prod --keep 20 --dry-run"
    "\n  decloud-trainer store gc prod --keep 20 --protect-tags 5,12,42 --yes" + CODES
)
@CHAIN
@click.option("--keep", type=click.IntRange(1), required=True, help="So many of the newest stay.")
@click.option(
    "--protect",
    "--protect-tags",
    "protect",
    metavar="LIST",
    default="",
    help="Versions that stay, too: numbers, names or tags, e.g. 5,12,release-1.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@JSON_OPTION
def gc(chain: str, keep: int, protect: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Give up the contents of old versions; their records stay, so the chain still verifies.

    The first version, HEAD and tagged ones always stay.
    """
    from decloud_trainer.store.collect import collect, plan

    opened = opened_chain(chain)
    names = [name.strip() for name in protect.split(",") if name.strip()]
    protected = [opened.get_version(name).counter for name in names]
    found = plan(opened, keep, protected)
    if not as_json:
        gone = ", ".join(version.name for version in found.versions) or "no version"
        click.echo(f"goes: {gone}; {found.freed / 1e6:,.2f} MB in {len(found.blobs)} files")
    if as_json and not (dry_run or yes):
        raise SettingsError("--json doesn't ask", hint="add --yes, or --dry-run")
    if not dry_run and (found.versions or found.blobs):
        if not yes and not click.confirm("Remove these contents for ever?"):
            click.echo("nothing was removed")
            return
        found = collect(opened, keep, protected)
    if as_json:
        print_json(
            {
                "chain": opened.where,
                "removed": not dry_run,
                "versions": [version.name for version in found.versions],
                "kept": sorted(found.kept),
                "files": len(found.blobs),
                "bytes": found.freed,
            }
        )
    elif not dry_run:
        click.echo("done")


@store.command(epilog="\b\nExample:\n  decloud-trainer store stats prod" + CODES)
@CHAIN
@JSON_OPTION
def stats(chain: str, as_json: bool) -> None:
    """Show how much a chain holds, and how much sharing saves."""
    opened = opened_chain(chain)
    versions = list(opened.log())
    held = [version for version in versions if not opened.is_collected(version)]
    stored = sum(blob.size for blob in opened.backend.list("blobs/"))
    content = sum(version.size for version in held)
    facts = {
        "chain": opened.where,
        "versions": len(versions),
        "with_content": len(held),
        "tags": len(opened.tags()),
        "content_bytes": content,
        "stored_bytes": stored,
        "stored_share": stored / content if content else None,
    }
    if as_json:
        print_json(facts)
        return
    share = f", {stored / content:.0%} of it" if content else ""
    print_pairs(
        {
            "Chain": opened.where,
            "Versions": f"{len(versions)}, {len(held)} with their content",
            "Tags": str(facts["tags"]),
            "Contents": f"{content / 1e6:,.2f} MB in all",
            "Stored": f"{stored / 1e6:,.2f} MB{share}",
        }
    )


@store.command(
    "copy",
    epilog="\b\nExamples:\n  decloud-trainer store copy prod s3://models/prod"
    "\n  decloud-trainer store copy s3://models/prod ./prod" + CODES,
)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@JSON_OPTION
def copy_chain(source: str, target: str, as_json: bool) -> None:
    """Copy a chain to another place, or bring the copy up to date; hashes stay the same."""
    from decloud_trainer.store.copying import copy

    one, other = opened_chain(source), opened_chain(target)
    count = copy(one, other, each=progress_line("copied", as_json))
    if as_json:
        print_json({"from": one.where, "to": other.where, "versions": count})
    else:
        click.echo(f"{count} versions copied to {other.where}")


for command in (export, checkout, import_file, diff, tensorboard):
    store.add_command(command)
