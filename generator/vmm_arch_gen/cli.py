"""The ``vmm-arch-gen`` command, and the pipeline that it runs.

``vmm-arch-gen extract`` needs headers and a C compiler. For each target it

1. finds the compiler and the headers, fetches packages    extract/toolchain.py, fetch/packages.py
2. preprocesses the headers, respells them as C23          extract/preprocess.py, respell.py
3. parses them, reads declarations from pycparser's tree   extract/parse.py, translation_unit.py
4. lays out records as a compiler does                     abi/layout.py
5. evaluates macros                                        extract/macros.py, expressions.py
6. has the compiler state every fact itself, and compares  extract/verify.py
7. writes headers/abi/TARGET.abi                           abi/writer.py, outputs.py

With ``--header`` the targets come from the command line (own_headers.py), and step 9 follows at
once.

``vmm-arch-gen generate`` is text processing only. For each target it

8. reads the .abi file and lays out its records again      abi/reader.py
9. translates them to ctypes                               generate/ctypes_records.py, abi_module.py
10. reads the CPU's contract and named states              arch/contract.py, states.py
11. reads the hypervisor's folder, and compares            arch/hypervisor.py, check.py
12. plans what each arch function writes, and how          arch/plan.py, generate/arch_functions.py
13. renders the templates and formats them with black      generate/render.py, formatting.py
14. looks at what every name in the result means           generate/providers.py, imports.py, scopes.py
15. writes generated/vmm_arch, all or nothing              outputs.py

``vmm-arch-gen plan`` prints step 12 (generate/explain.py).

``vmm-arch-gen diff`` and ``show`` read .abi files and write nothing. ``diff`` finds both versions
(compare/sources.py, versions.py), compares them (compare/compare.py, fields.py) and reports
(compare/report.py). ``targets`` lists the table (show/targets.py). ``show`` finds a name (show/find.py) and prints (show/text.py) or draws it
(show/picture.py).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

# Each command imports what only it needs: diff and show are to answer at once.
from vmm_arch_gen.console import Commands, finish, print_lines, print_text, progress
from vmm_arch_gen.diagnostics import InputError, Problem
from vmm_arch_gen.extract_command import extract
from vmm_arch_gen.options import FOLDER, MORE_TARGETS, TEMPLATES, writing
from vmm_arch_gen.project import project


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vmm-arch")
def main() -> None:
    """Turn C headers of hypervisors into proven, typed Python modules.

    \b
    extract   headers and a C compiler -> headers/abi/TARGET.abi
    generate  those and the templates  -> generated/vmm_arch
    plan      what a state of a vCPU takes on each hypervisor
    diff      what changed between two versions of the facts
    show      a layout, an ioctl number, a value
    targets   which sets of headers there are

    Exit status: 0 all is well, 1 --check found differences, 2 something is wrong with the input;
    diff has 10 and 11 for changes.
    """


main.add_command(extract)


@main.command()
@writing
@click.option("--abi", type=FOLDER, metavar="DIR", help="Read TARGET.abi there.")
@click.option("--output", type=FOLDER, metavar="DIR", help="Write the package vmm_arch there.")
@TEMPLATES
def generate(
    only: tuple[str, ...],
    abi: Path | None,
    output: Path | None,
    templates: Path | None,
    more_targets: Path | None,
    **mode: bool,
) -> None:
    """Generate the modules of vmm_arch from the .abi files and the templates.

    With --templates or --targets, name the folder to write to as well: --output.
    """
    from vmm_arch_gen.generate.generate import MARKER, Inputs, generate
    from vmm_arch_gen.generate.overlay import overlaid
    from vmm_arch_gen.outputs import compare, orphans
    from vmm_arch_gen.targets import load_targets

    paths = project()
    table = load_targets(paths.targets_file, more_targets)
    targets = table.select([*only, *(name for name in table.always if only)])
    if (templates or more_targets) and output is None:
        what = "with your own templates or targets the output does not belong in this checkout"
        raise InputError(Problem("--output", what, "name the folder to write to: --output DIR"))
    root = paths.output(output, "generated")
    with overlaid(paths.templates, templates) as folder:
        known = list(table.targets.values())
        inputs = Inputs(folder, abi or paths.abi, paths.abi, paths.values_file, known)
        files = generate(inputs, targets, progress(mode["quiet"]))
    unneeded = [] if only else orphans(root, files, "vmm_arch/**/*", MARKER)
    finish(compare(root, files, orphans=unneeded), root, mode)


@main.command()
@click.argument("state")
@click.option(
    "--hypervisor", multiple=True, metavar="NAME", help="On this one, as kvm; may be repeated."
)
@click.option("--cpu", default="x86_64", show_default=True, metavar="CPU", help="Of this CPU.")
@click.option("--abi", type=FOLDER, metavar="DIR", help="Read TARGET.abi there.")
@TEMPLATES
@MORE_TARGETS
def plan(
    state: str,
    hypervisor: tuple[str, ...],
    cpu: str,
    abi: Path | None,
    templates: Path | None,
    more_targets: Path | None,
) -> None:
    """Show what STATE takes on each hypervisor, call by call.

    \b
    STATE is one of those that templates/cpu/CPU/states.py names:
      plan long64                     64-bit mode, on every hypervisor
      plan secondary --hypervisor kvm
    """
    from vmm_arch_gen.abi.reader import read_abi_file
    from vmm_arch_gen.generate.backend_inputs import read_backend_inputs
    from vmm_arch_gen.generate.explain import explain
    from vmm_arch_gen.generate.names import abi_names
    from vmm_arch_gen.generate.overlay import overlaid
    from vmm_arch_gen.generate.render import Templates
    from vmm_arch_gen.targets import load_targets

    paths = project()
    table = load_targets(paths.targets_file, more_targets)
    backends = [name for name, target in table.targets.items() if target.backend]
    wanted = [f"{name}_{cpu}" for name in hypervisor]
    chosen = wanted or [name for name in backends if name.endswith(f"_{cpu}")]
    if missing := [name for name in chosen if name not in backends] or ([] if chosen else [cpu]):
        what, remedy = "there is no such backend", f"the backends are {', '.join(backends)}"
        raise InputError(*(Problem(name, what, remedy) for name in missing))
    lines: list[tuple[str, str | None]] = []
    with overlaid(paths.templates, templates) as folder:
        for name in chosen:
            facts = read_abi_file((abi or paths.abi) / f"{name}.abi")
            rendering = Templates(folder, facts=dict(abi_names(facts)))
            inputs = read_backend_inputs(folder, facts, rendering)
            lines += [("", None)] * bool(lines) + [*explain(inputs, folder, rendering, state)]
    print_lines(lines)


@main.command()
@click.argument("old")
@click.argument("new", required=False)
@click.option(
    "--only", "only", multiple=True, metavar="TARGET", help="This target; may be repeated."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    help="json for programs, markdown for pull requests.",
)
@click.option("--cc", metavar="CMD", help="Where headers are compared, prove them with this.")
def diff(old: str, new: str | None, only: tuple[str, ...], form: str, cc: str | None) -> None:
    """Show what changed from OLD to NEW, the breaking changes first.

    \b
    OLD and NEW are each one of these; NEW is the facts of the checkout if it is not given:
      an .abi file            my/kvm_x86_64.abi
      a folder of them        headers/abi
      a git revision          HEAD~1, or v1.0:headers/abi for a folder or file in it
      folders of headers      linux-6.1/include, or /usr/include:/usr/include/x86_64-linux-gnu

    Exit status: 0 nothing changed, 10 additions only, 11 a breaking change, 2 an error in the input.
    """
    _keep_garbage()
    from vmm_arch_gen.compare.report import as_json, as_markdown, as_text, exit_status
    from vmm_arch_gen.compare.versions import compare_versions

    paths = project()

    def headers(names: Sequence[str], folders: Sequence[Path]) -> dict[str, str]:
        from vmm_arch_gen.extract.extract import extract_and_prove
        from vmm_arch_gen.targets import load_targets

        table = load_targets(paths.targets_file)
        return {
            target.name: extract_and_prove(target, table.package, folders, cc)[0].decode()
            for target in table.select(names)
        }

    comparisons = compare_versions(old, str(paths.abi) if new is None else new, only, headers)
    match form:
        case "json":
            print_text(as_json(comparisons))
        case "markdown":
            print_text("\n".join(as_markdown(comparisons)))
        case _:
            print_lines(as_text(comparisons))
    sys.exit(exit_status(comparisons))


@main.command()
@click.argument("name")
@click.option("--target", multiple=True, metavar="TARGET", help="There; may be repeated.")
@click.option("--expand", is_flag=True, help="Show what is in records with names of their own.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "svg", "html"]),
    default="text",
    help="json for programs; svg and html draw a record to scale.",
)
@click.option("--abi", type=FOLDER, metavar="DIR", help="Read TARGET.abi there.")
def show(name: str, target: tuple[str, ...], expand: bool, form: str, abi: Path | None) -> None:
    """Show NAME: a record's layout, an ioctl number taken apart, a value, a prototype, a macro.

    \b
    NAME may have wildcards, and may be a number: an ioctl's, or else a value.
      show kvm_segment        offsets, sizes and holes
      show 'KVM_EXIT_*'       what the exit reasons are
      show 0x4090ae82         which ioctl that is
      show 0xc0000080         what else has that number: an MSR
      show 'KVM_REG_SIZE(0x6030000000140000)'
                              what a macro with arguments gives
    """
    _keep_garbage()
    from vmm_arch_gen.show.find import find
    from vmm_arch_gen.show.text import as_json, as_text

    found, others = find(abi or project().abi, name, target)
    match form:
        case "json":
            print_text(as_json(found, expand=expand))
        case "svg" | "html":
            from vmm_arch_gen.show.picture import picture

            print_text(picture(found, name, expand=expand, page=form == "html"))
        case _:
            print_lines(as_text(found, others, expand=expand))


@main.command()
@MORE_TARGETS
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    help="json for programs.",
)
def targets(more_targets: Path | None, form: str) -> None:
    """List the targets by family: what they are, on which CPUs, and their headers.

    A target is FAMILY_CPU. Those with a backend have a module vmm_arch.TARGET besides
    vmm_arch.abi.TARGET.
    """
    from vmm_arch_gen.show.targets import as_json, as_text
    from vmm_arch_gen.targets import load_targets

    table = load_targets(project().targets_file, more_targets)
    if form == "json":
        print_text(as_json(table))
    else:
        print_lines(as_text(table))


def _keep_garbage() -> None:
    """Let the end of a short command clean up: to look for garbage in all the facts takes long."""
    import gc

    gc.disable()
