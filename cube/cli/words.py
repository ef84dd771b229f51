"""Plans, builds and reports as text and as plain data for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cube.catalog import PAGE
from cube.cli.progress import counted, duration, size
from cube.recipes import WHOLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cube.convert.estimates import Estimate
    from cube.convert.plan import Plan
    from cube.jobs.build import Built
    from cube.recipes.recipe import Recipe
    from cube.source.inventory import Inventory
    from cube.verify.report import Report

_AGAIN = "No catalog was written. The same command writes the damaged batches again."
_SHOWN = 5
"""Rejected files and findings printed in full."""


def visible(text: str) -> str:
    """Return a text of somebody else's, such as a file's name, without what would move a terminal's cursor or colour it."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def published_text(recipe: Recipe, inventory: Inventory) -> list[str]:
    """Return, season by season, what the whole source holds against what was published, and what is chosen of it."""
    lines = []
    for place, (name, season) in enumerate(recipe.seasons.items()):
        scenes, patches = inventory.found.get(name, (0, 0))
        if not patches and not season.patches:
            continue
        known = f" of {season.patches:,}" if season.patches else ""
        of_scenes = f" of {season.scenes}" if season.scenes else ""
        lacking = f", {season.patches - patches:,} missing" if season.patches and patches < season.patches else ""
        here = int((inventory.season == place).sum())
        chosen = f"; {here:,} to be converted" if here != patches else ""
        noun = "scene" if scenes == 1 and not of_scenes else "scenes"
        in_scenes = f" in {scenes}{of_scenes} {noun}" if scenes > 1 or of_scenes or name != WHOLE else ""
        title = "" if name == WHOLE else name
        lines.append(f"  {title:10} {patches:>9,}{known} patches{in_scenes}{lacking}{chosen}")
    return lines


def published_document(recipe: Recipe, inventory: Inventory) -> dict[str, Any]:
    """Return the same as plain data."""
    document = {}
    for name, season in recipe.seasons.items():
        scenes, patches = inventory.found.get(name, (0, 0))
        document[name] = {"scenes": scenes, "of_scenes": season.scenes, "patches": patches, "of_patches": season.patches}
    return document


def plan_text(plan: Plan, expected: Estimate | None) -> str:
    """Return a plan in words; without an estimate, only what is certain."""
    inventory, recipe = plan.inventory, plan.recipe
    lines = [
        f"{recipe.title} from {inventory.source}",
        *published_text(recipe, inventory),
        *([f"  {remark}"] if (remark := inventory.opened.remark) else []),
        f"  {inventory.ignored:,} files ignored{_copies(inventory)}, {len(inventory.rejected):,} rejected{_reasons(inventory)}",
        *_rejected_lines([(item.path, item.reason, item.detail) for item in inventory.rejected]),
        *_defects(plan),
        *_growing(plan),
        f"Plan {plan.digest}, profile {recipe.layout.profile}",
    ]
    for spec in plan.arrays[: len(plan.job.layouts)]:
        shape, shard, tile = (" × ".join(map(str, part)) for part in (spec.shape, spec.chunks, spec.inner or ()))
        lines.append(f"  {spec.path:10} {spec.dtype} {shape} · shards {shard} · tiles {tile} · {spec.codec_text}")
    numbers = {"task": plan.tasks, "shard": plan.shards, "object": plan.objects}
    counts = " · ".join(counted(number, noun) for noun, number in numbers.items())
    lines.append(f"  {counts} · {size(inventory.total_bytes)} in")
    return "\n".join(lines + (_estimate_lines(plan, expected) if expected else []))


def _estimate_lines(plan: Plan, expected: Estimate) -> list[str]:
    ratio = plan.raw_bytes / max(1, expected.stored_bytes)
    if not expected.sampled:
        return [
            f"  about {size(expected.stored_bytes)} out (1/{ratio:.1f} of the pixels), by ratios typical of this recipe; "
            "--sample 200 measures on these files",
            f"  {_memory(expected)}",
        ]
    shares = ", ".join(f"{name} {share:.2f}" for name, share in expected.sharing.items())
    parts = ", ".join(f"{name} {size(stored)}" for name, stored in expected.stored.items())
    return [
        f"Measured on {expected.sampled} of these patches:",
        f"  tiles shared: {shares} uses per stored tile",
        f"  {size(expected.stored_bytes)} out, 1/{ratio:.1f} of the pixels ({parts})",
        f"  about {duration(expected.seconds or 0)} with {counted(expected.workers, 'worker')}; {_memory(expected)}",
        *_said_lines(expected.statements, dict.fromkeys(expected.sharing, expected.sampled)),
    ]


def _memory(expected: Estimate) -> str:
    worst = size(expected.spooled_bytes)
    return f"{size(expected.peak_bytes)} of memory per worker, at most {worst} where the cube goes to an object store"


def _copies(inventory: Inventory) -> str:
    return f", {counted(inventory.copies, 'file')} the same as the one used" if inventory.copies else ""


def _reasons(inventory: Inventory) -> str:
    reasons = inventory.reasons()
    return f" ({', '.join(f'{count:,} {reason}' for reason, count in reasons.items())})" if reasons else ""


def _rejected_lines(rejected: list[tuple[str, str, str]]) -> list[str]:
    lines = [f"    {visible(path)}: {reason}: {visible(detail)}" for path, reason, detail in rejected[:_SHOWN]]
    more = len(rejected) - _SHOWN
    return [*lines, *([f"    … and {more:,} more (all of them with --json)"] if more > 0 else [])]


def _defects(plan: Plan) -> list[str]:
    known = {defect.patch: defect for defect in plan.recipe.known_defects}
    here = [known[patch] for patch in plan.inventory.patch if patch in known]
    return [f"  known defect: {defect.patch} {defect.modality}: {defect.note}" for defect in here]


def _growing(plan: Plan) -> list[str]:
    """Return what a plan adds to which cube."""
    if plan.base is None:
        return []
    lines = [
        f"Adds {counted(plan.patches, 'patch')} to {plan.base.patches:,}; {plan.known:,} of those asked for are there already"
    ]
    if plan.others:
        shown = ", ".join(plan.others[:_SHOWN]) + (", …" if len(plan.others) > _SHOWN else "")
        lines.append(f"  {len(plan.others):,} of those have files of other sizes now, which are not taken: {shown}")
    return lines


def file_words(attributes: Mapping[str, Any]) -> str:
    """Return what files say about their pixels, from the attributes of their array."""
    from cube.source.statements import statement_text

    return statement_text(
        tuple(
            (key.removeprefix("file_"), tuple(value) if isinstance(value, list) else value) for key, value in attributes.items()
        )
    )


def _said_lines(statements: Mapping[str, Mapping[str, int]], files: Mapping[str, int]) -> list[str]:
    """Return what files say about their pixels, a line for each wording."""
    return [
        f"  {name}: {count:,} of {counted(files[name], 'file')} say {words}; pixels are stored as they are"
        for name, of in statements.items()
        for words, count in of.items()
    ]


def estimate_document(plan: Plan, expected: Estimate) -> dict[str, Any]:
    """Return a plan and its estimate as plain data."""
    published = published_document(plan.recipe, plan.inventory)
    return {"plan": plan.document(), "published": published, "estimate": expected.document()}


def built_text(built: Built, url: str) -> str:
    """Return what a build did, and predicted beside actual."""
    written, raw, grows = built.written, built.plan.raw_bytes, built.plan.base is not None
    if grows and not built.plan.patches:
        return "\n".join(
            [f"{url} has all {counted(built.plan.known, 'patch')} that were asked for: nothing to add", *_ending(built)]
        )
    done = f"Added to {url}" if grows else f"Wrote {url}"
    lines = [f"{done}: {counted(built.plan.patches, 'patch')} in {duration(built.seconds)}"]
    if written.resumed:
        lines[0] += f" ({written.resumed:,} of {built.plan.tasks:,} batches stood from an earlier run)"
    lines.append(f"  {size(raw)} of pixels stored in {size(written.new_bytes)}: 1/{raw / max(1, written.new_bytes):.1f}")
    for name, (used, stored) in written.tiles().items():
        lines.append(f"  {name:10} {used:,} tiles, {stored:,} stored: each used {used / max(1, stored):.2f} times")
    across = {name: layout.across**2 for name, layout in built.plan.job.layouts.items()}
    files = {name: used // across[name] for name, (used, _) in written.tiles().items()}
    lines += _said_lines(written.statements(), files)
    if written.rejected:
        lines.append(f"  {counted(len(written.rejected), 'file')} rejected when read:")
        lines += _rejected_lines(written.rejected)
    lines += ["", f"  {'':22} {'predicted':>14} {'actual':>14}"]
    for name, predicted, actual in built.comparison():
        shown = [_figure(name, value) for value in (predicted, actual)]
        lines.append(f"  {name:22} {shown[0]:>14} {shown[1]:>14}")
    return "\n".join([*lines, *_ending(built)])


def _ending(built: Built) -> list[str]:
    lines = ["", report_text(built.report)]
    if not built.catalog:
        return [*lines, _AGAIN]
    page = f"{built.catalog.rpartition('/')[0]}/{PAGE}"
    return [*lines, f"Catalog: {built.catalog}", f"To look at in a browser: {page}"]


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    if name == "seconds":
        return f"{value:,.1f}"
    return size(value) if "bytes" in name else f"{value:,.0f}"


def report_text(report: Report) -> str:
    """Return a report in words, every finding in full up to a few per check."""
    lines = []
    for check in report.checks:
        lines.append(f"  {'ok  ' if check.passed else 'FAIL'} {check.name:13} {check.seen}")
        lines += [f"       {visible(finding.where)}: {visible(finding.what)}" for finding in check.findings[:_SHOWN]]
        if len(check.findings) > _SHOWN:
            lines.append(f"       … and {len(check.findings) - _SHOWN:,} more (all of them with --json)")
    verdict = "sound" if report.passed else "NOT sound"
    return "\n".join([f"{report.url} is {verdict}:", *lines])
