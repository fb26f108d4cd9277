"""``vmm-arch-gen extract``: the facts of the table's targets, or of any header with its module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import click

from vmm_arch_gen.console import finish, progress, warn_left_out
from vmm_arch_gen.diagnostics import InputError, Problem, collecting, refuse
from vmm_arch_gen.options import FOLDER, writing
from vmm_arch_gen.project import Project, project

if TYPE_CHECKING:
    from vmm_arch_gen.extract.left_out import Omitted
    from vmm_arch_gen.targets import Package, Target

_WITH_HEADER = ("only_cpu", "system", "name", "define", "shims", "standalone")
"""The options that only --header gives a meaning."""


@click.command()
@writing
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="HEADER",
    help="Any header: a file, or a name in the include folders. Write TARGET.abi and TARGET.py, a"
    " module to import. May be repeated: first what others need.",
)
@click.option(
    "--only-cpu",
    multiple=True,
    metavar="CPU",
    help="With --header: for this CPU instead of this machine's; may be repeated.",
)
@click.option(
    "--system",
    metavar="SYSTEM",
    help="With --header: for this system, as freebsd or windows, instead of linux.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="With --header: TARGET is NAME_CPU; the default is the last header's name.",
)
@click.option(
    "--define",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="With --header: define this macro; may be repeated.",
)
@click.option(
    "--shims",
    metavar="DIR",
    help="With --header: take headers from here first when reading, but not when proving.",
)
@click.option(
    "--standalone",
    is_flag=True,
    help="With --header: modules that need no installed vmm-arch; the folder becomes a package.",
)
@click.option(
    "--include",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Take headers from this folder instead of the pinned package, with --header before it;"
    " may be repeated.",
)
@click.option("--cc", metavar="CMD", help="Use this C compiler, which must compile for the target.")
@click.option(
    "--output",
    type=FOLDER,
    metavar="DIR",
    help="Write there. The default is headers/abi of a checkout, with --header the current folder.",
)
@click.option("-v", "--verbose", is_flag=True, help="List everything that was left out, and why.")
def extract(
    only: tuple[str, ...],
    headers: tuple[str, ...],
    include: tuple[Path, ...],
    cc: str | None,
    output: Path | None,
    more_targets: Path | None,
    verbose: bool,
    only_cpu: tuple[str, ...],
    system: str | None,
    name: str | None,
    define: tuple[str, ...],
    shims: str | None,
    standalone: bool,
    **mode: bool,
) -> None:
    """Read headers, prove what they declare with a C compiler, and write the facts: TARGET.abi.

    \b
    With --header, of any header, and with a typed Python module of them:
      a header of yours     --header ./interface.h --include DIR
      a system's            --header linux/vhost.h --only-cpu x86_64 --output DIR
      one that needs more   --header linux/ioctl.h --header linux/userfaultfd.h

    \b
    Without, of the targets in headers/targets.toml. The default is the pinned headers and compiler.
    What Debian's packages have is fetched with apt; if it is not to be had, the targets that need it
    keep their facts unless --only names them. Others, for example:
      the system's headers  --only kvm_x86_64 --include /usr/include \\
                            --include /usr/include/x86_64-linux-gnu --cc gcc --output DIR
      a kernel's            make headers_install INSTALL_HDR_PATH=H; --include H/include
      a Windows SDK         --only whp_x86_64 --include SDK/um --include SDK/shared \\
                            --include SDK/ucrt
    """
    # Only here: generating needs neither pycparser nor a compiler to be installed.
    from vmm_arch_gen.abi.text import MAGIC
    from vmm_arch_gen.outputs import compare, orphans
    from vmm_arch_gen.own_headers import OwnHeaders, import_command, own_files, own_targets
    from vmm_arch_gen.targets import largest_first, load_targets

    _refuse_contradictions(headers, only)
    paths = project()
    table = load_targets(paths.targets_file, more_targets)
    say = progress(mode["quiet"])
    if headers:
        request = OwnHeaders(headers, system or "linux", only_cpu, name, include, shims, define)
        targets = own_targets(request, table, paths.headers / "shims")
        facts = _facts(targets, table.package, (), cc, "listed" if verbose else "counted", say)
        root = output or Path()
        files = own_files(facts, paths, root, standalone=standalone)
        finish(compare(root, files), root, mode)
        if not mode["check"] and not mode["diff"]:
            for target in targets:
                say(f"try it: {import_command(target, root, standalone=standalone)}")
    else:
        root = paths.output(output, "headers", "abi")
        targets = largest_first(table.select(only), paths.abi)
        kept = {} if include else _kept(targets, paths, say, refused=bool(only))
        there = [target for target in targets if target.name not in kept]
        facts = _facts(there, table.package, include, cc, "listed" if verbose else "not", say)
        files = {PurePosixPath(f"{name}.abi"): text for name, text in (kept | facts).items()}
        unneeded = [] if only else orphans(root, files, "*.abi", MAGIC)
        finish(compare(root, files, orphans=unneeded), root, mode)


def _refuse_contradictions(headers: Sequence[str], only: Sequence[str]) -> None:
    """Refuse options of the two ways to extract together."""
    if headers and only:
        what = "the headers of a target are in its table"
        raise InputError(Problem("--only", what, "leave it out, or leave out --header"))
    given = click.get_current_context().params
    what, remedy = "says nothing without --header", "name the header: --header HEADER"
    refuse(
        Problem(f"--{option.replace('_', '-')}", what, remedy)
        for option in _WITH_HEADER
        if given[option] and not headers
    )


def _kept(
    targets: Sequence[Target], paths: Project, say: Callable[[str], None], *, refused: bool
) -> dict[str, bytes]:
    """The .abi files as they are of targets whose Debian packages are not to be had.

    InputError if a target has none, or if it is ``refused`` to go on without the packages.
    """
    from vmm_arch_gen.fetch.packages import missing_packages

    missing = missing_packages(targets, say)
    files = {name: paths.abi / f"{name}.abi" for name in missing}
    refuse(
        problem
        for name, problems in missing.items()
        for problem in problems
        if refused or not files[name].is_file()
    )
    warn_left_out(missing)
    return {name: file.read_bytes() for name, file in files.items()}


def _facts(
    targets: Sequence[Target],
    package: Package,
    include: Sequence[Path],
    cc: str | None,
    omitted: Omitted,
    say: Callable[[str], None],
) -> dict[str, bytes]:
    """The .abi files of targets, by their names; ``say`` is told what is in each."""
    from vmm_arch_gen.extract.extract import extract_and_prove
    from vmm_arch_gen.parallel import in_parallel

    if cc is not None and len(targets) > 1:
        what = "one compiler command compiles for one target"
        remedy = "name that target with --only TARGET, with --header its CPU with --only-cpu CPU"
        raise InputError(Problem("--cc", what, remedy))
    found: dict[str, bytes] = {}
    problems: list[Problem] = []
    calls = {
        target.name: partial(extract_and_prove, target, package, include, cc, omitted)
        for target in targets
    }
    for name, result in in_parallel(calls):
        with collecting(problems):
            found[name], lines = result()
            for line in lines:
                say(line)
    refuse(problems)
    return found
