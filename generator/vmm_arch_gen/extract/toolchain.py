"""A C compiler and the folders that it finds headers in."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmm_arch_gen.diagnostics import InputError, Problem
from vmm_arch_gen.fetch.packages import unpacked
from vmm_arch_gen.targets import Origin, Package, Target


@dataclass(frozen=True)
class Toolchain:
    """How to compile for one target, and whose headers."""

    command: tuple[str, ...]
    """The compiler, told which target to compile for."""
    folders: tuple[Path, ...]
    """Where the target's headers are, searched in this order; no other folder is searched."""
    own_headers: Path | None
    """The headers that belong to the compiler itself (stdarg.h …)."""
    origin: str
    """What the headers are, for the facts: their version and their package."""

    def preprocess(
        self, text: str, *, options: Sequence[str] = (), shims: Sequence[Path] = ()
    ) -> str:
        """Preprocess C text as the only compilation unit, with line markers."""
        arguments = [*self.command, "-E", *options, "-x", "c", *self._search(shims), "-"]
        return self._run(arguments, text, shims)

    def compile(self, text: str, *, options: Sequence[str] = ()) -> bytes:
        """Compile C text to an object file and return its bytes."""
        with tempfile.TemporaryDirectory(prefix="vmm-arch-") as folder:
            output = Path(folder, "proof.o")
            language = ["-std=gnu11", "-w", "-O0", "-c", "-o", str(output), "-x", "c"]
            self._run([*self.command, *language, *options, *self._search(), "-"], text)
            if not output.exists():
                raise InputError(
                    Problem(
                        shlex.join(self.command),
                        "this compiler ended well but wrote no object file",
                        "name a C compiler for the target with --cc CMD",
                    )
                )
            return output.read_bytes()

    def header_name(self, path: str, shims: Sequence[Path] = ()) -> str:
        """A header's name relative to the folder that it was found in."""
        if path.startswith("<"):  # <built-in>, <command line>, <stdin>
            return path
        own = (self.own_headers,) if self.own_headers else ()
        for real in (Path(path), Path(path).resolve()):  # gcc rewrites some paths
            around = [f for f in (*shims, *own, *self.folders) if real.is_relative_to(f)]
            around += [f for f in self.folders if real.is_relative_to(f.resolve())]
            if around:
                folder = max(around, key=lambda f: len(f.resolve().parts))  # the innermost
                base = folder if real.is_relative_to(folder) else folder.resolve()
                prefix = "shim:" if folder in shims else "cc:" if folder in own else ""
                return prefix + real.relative_to(base).as_posix()
        raise InputError(
            Problem(
                path,
                "this header is included from outside the include folders",
                "name its folder with --include DIR, for diff as in FOLDER:FOLDER",
            )
        )

    def _place(self, path: str, shims: Sequence[Path]) -> str:
        """A file as errors name it."""
        try:
            return self.header_name(path, shims)
        except InputError:
            return path

    def _search(self, shims: Sequence[Path] = ()) -> Iterator[str]:
        yield "-nostdinc"
        own = (self.own_headers,) if self.own_headers else ()
        for folder in (*shims, *own, *self.folders):
            yield from ("-isystem", str(folder))

    def _run(self, arguments: Sequence[str], text: str, shims: Sequence[Path] = ()) -> str:
        try:
            done = subprocess.run(
                arguments,
                input=text.encode(),
                capture_output=True,
                check=False,
                env=os.environ | {"LC_ALL": "C"},
            )
        except OSError as error:
            raise _cannot_run(arguments[0], error) from None
        if done.returncode:
            raise InputError(*self._complaints(done, shims))
        return done.stdout.decode(errors="backslashreplace")

    def _complaints(
        self, done: subprocess.CompletedProcess[bytes], shims: Sequence[Path]
    ) -> Iterator[Problem]:
        """The errors that a compiler printed, each with header and line."""
        printed = done.stderr.decode(errors="replace")
        found = False
        for match in re.finditer(r"^(.+?):(\d+):\d+: (?:fatal )?error: (.+)$", printed, re.M):
            path, line, what = match.groups()
            found = True
            where = f"{self._place(path, shims)}:{line}"
            if "file not found" in what or "No such file" in what:
                missing = re.sub(r"^'|'.*|: No such file.*", "", what)
                searched = ", ".join(map(str, self.folders))
                yield Problem(
                    missing,
                    f"this header is in none of the include folders ({searched})",
                    "name the folder that has it with --include DIR, for diff as in FOLDER:FOLDER",
                )
            else:
                yield Problem(
                    where,
                    f"the compiler says: {what}",
                    "correct the header, or give the target a shim for it",
                )
        if not found:
            said = printed.strip().splitlines()[-1:] or ["nothing"]
            yield Problem(
                shlex.join(self.command),
                f"this compiler failed with exit status {done.returncode} and said: {said[0]}",
                "name a C compiler for the target with --cc CMD",
            )


def _cannot_run(command: str, error: OSError) -> InputError:
    what = f"this compiler cannot be run: {error.strerror}"
    return InputError(Problem(command, what, "name a working one with --cc CMD"))


def find_toolchain(
    target: Target, package: Package, *, include: Sequence[Path] = (), cc: str | None = None
) -> Toolchain:
    """The toolchain for a target: the pinned package's, or the given headers and compiler.

    ``include`` replaces the package's headers and Debian's, ``cc`` the package's compiler; with
    both the package is not needed. ``cc`` is a command line and has to compile for the target by
    itself.
    """
    for folder in include:
        if not folder.is_dir():
            what = "this is not a folder" if folder.exists() else "there is no such folder"
            raise InputError(Problem(f"--include {folder}", what, "name an existing folder"))
    pinned = None if include and cc is not None else _pinned(package)
    if cc is not None:
        command = _command(cc)
        own_headers = _own_headers(command)
    else:
        assert pinned is not None
        zig = pinned / ("zig.exe" if os.name == "nt" else "zig")
        command = (str(zig), "clang", "-target", target.triple)
        own_headers = pinned / "lib" / "include"
    if include:
        folders, source = tuple(include), ""
    else:
        assert pinned is not None
        folders = tuple(
            (unpacked(folder.package) if folder.package else pinned / package.include) / folder.path
            for folder in target.folders
        )
        first = target.folders[0].package or package
        source = f", {first.name} {first.version}"
    return Toolchain(command, folders, own_headers, _version(folders, target.origin) + source)


def _pinned(package: Package) -> Path:
    """The folder of the pinned package, which must be installed in exactly the pinned version."""
    remedy = (
        f"pip install {package.name}=={package.version}, or use other headers and another compiler"
        " with --include DIR and --cc CMD"
    )
    spec = importlib.util.find_spec(package.name)
    if spec is None or spec.origin is None:
        raise InputError(Problem(package.name, "this package is not installed", remedy))
    folder = Path(spec.origin).parent
    metadata = folder.parent / f"{package.name}-{package.version}.dist-info"
    if not metadata.is_dir():  # importlib.metadata would say the same; importing it takes long
        from importlib.metadata import version

        installed = version(package.name)
        raise InputError(
            Problem(
                package.name,
                f"version {installed} is installed, but headers/targets.toml pins {package.version}",
                remedy,
            )
        )
    return folder


def _command(cc: str) -> tuple[str, ...]:
    try:
        command = tuple(shlex.split(cc))
    except ValueError as error:
        raise InputError(Problem(f"--cc {cc}", str(error), "quote it as for a shell")) from None
    if not command or shutil.which(command[0]) is None:
        raise InputError(
            Problem(
                f"--cc {cc}",
                "there is no such command",
                "install the compiler or name another (Debian: apt-get install gcc)",
            )
        )
    return command


def _own_headers(command: tuple[str, ...]) -> Path | None:
    """Ask a compiler like gcc or clang for the folder of its own headers."""
    try:
        done = subprocess.run(
            [*command, "-print-file-name=include"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise _cannot_run(command[0], error) from None
    folder = Path(done.stdout.strip())
    return folder if done.returncode == 0 and folder.is_absolute() and folder.is_dir() else None


def _version(folders: Sequence[Path], origin: Origin) -> str:
    """``Linux 7.2.0 headers``, from the macros of the header that says so."""
    for folder in folders:
        header = folder / origin.header
        if header.is_file():
            text = header.read_text(encoding="utf-8", errors="replace")
            numbers = [
                re.search(rf"^#\s*define\s+{macro}\s+(0x[0-9a-fA-F]+|\d+)\s*$", text, re.M)
                for macro in origin.macros
            ]
            if all(numbers):
                return f"{origin.name} {'.'.join(n[1] for n in numbers if n)} headers"
    return "headers of unknown version"
