"""A C compiler and the folders that it finds headers in."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmm_arch_gen.diagnostics import InputError, Problem
from vmm_arch_gen.extract.complaints import complaints, missing_headers
from vmm_arch_gen.extract.spellings import Spellings
from vmm_arch_gen.fetch.packages import unpacked
from vmm_arch_gen.targets import Folder, Package, Target


@dataclass(frozen=True)
class Toolchain:
    """How to compile for one target, and whose headers."""

    command: tuple[str, ...]
    """The compiler, told which target to compile for."""
    folders: tuple[Path, ...]
    """Where the target's headers are, searched in this order; no other folder is searched."""
    own_headers: Path | None
    """The headers that belong to the compiler itself (stdarg.h …)."""
    own: tuple[Path, ...]
    """Those of the folders that are the user's."""
    package: str
    """The package that the others are of, with its version; empty if there are none."""
    spellings: Spellings | None = None
    """Where headers are found whatever the case of their names."""

    @property
    def searched(self) -> tuple[Path, ...]:
        """All the folders that headers are searched in."""
        return (*([self.own_headers] if self.own_headers else []), *self.folders)

    def preprocess(
        self, text: str, *, options: Sequence[str] = (), shims: Sequence[Path] = ()
    ) -> str:
        """Preprocess C text as the only compilation unit, with line markers."""
        return self._run(["-E", *options, "-x", "c"], text, shims)

    def compile(self, text: str, *, options: Sequence[str] = ()) -> bytes:
        """Compile C text to an object file and return its bytes."""
        with tempfile.TemporaryDirectory(prefix="vmm-arch-") as folder:
            output = Path(folder, "proof.o")
            language = ["-std=gnu11", "-w", "-O0", "-c", "-o", str(output), "-x", "c"]
            self._run([*language, *options], text)
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
            spelt = self.spellings.folders if self.spellings else ()
            around = [f for f in (*shims, *spelt, *own, *self.folders) if real.is_relative_to(f)]
            around += [f for f in self.folders if real.is_relative_to(f.resolve())]
            if around:
                folder = max(around, key=lambda f: len(f.resolve().parts))  # the innermost
                base = folder if real.is_relative_to(folder) else folder.resolve()
                prefix = "shim:" if folder in (*shims, *spelt) else "cc:" if folder in own else ""
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
        first = self.spellings.before(shims) if self.spellings else ()
        last = self.spellings.after() if self.spellings else ()
        for folder in (*first, *shims, *own, *self.folders, *last):
            yield from ("-isystem", str(folder))

    def _run(self, options: Sequence[str], text: str, shims: Sequence[Path] = ()) -> str:
        done = self._try(options, text, shims)
        printed = done.stderr.decode(errors="replace")
        if (
            done.returncode
            and self.spellings
            and self.spellings.add(missing_headers(printed), shims)
        ):
            return self._run(options, text, shims)
        if done.returncode:
            raise InputError(*self._problems(done.returncode, printed, shims))
        return done.stdout.decode(errors="backslashreplace")

    def _try(
        self, options: Sequence[str], text: str, shims: Sequence[Path]
    ) -> subprocess.CompletedProcess[bytes]:
        arguments = [*self.command, *options, *self._search(shims), "-"]
        try:
            return subprocess.run(
                arguments,
                input=text.encode(),
                capture_output=True,
                check=False,
                env=os.environ | {"LC_ALL": "C"},
            )
        except OSError as error:
            raise _cannot_run(arguments[0], error) from None

    def _problems(self, status: int, printed: str, shims: Sequence[Path]) -> Sequence[Problem]:
        """What a failed compiler found wrong, or that it failed."""
        found = tuple(complaints(printed, self.folders, lambda path: self._place(path, shims)))
        said = printed.strip().splitlines()[-1:] or ["nothing"]
        failure = Problem(
            shlex.join(self.command),
            f"this compiler failed with exit status {status} and said: {said[0]}",
            "name a C compiler for the target with --cc CMD",
        )
        return found or (failure,)


def _cannot_run(command: str, error: OSError) -> InputError:
    what = f"this compiler cannot be run: {error.strerror}"
    return InputError(Problem(command, what, "name a working one with --cc CMD"))


def find_toolchain(
    target: Target, package: Package, *, include: Sequence[Path] = (), cc: str | None = None
) -> Toolchain:
    """The toolchain for a target: the pinned package's, or the given headers and compiler.

    ``include`` replaces the package's headers and Debian's, ``cc`` the package's compiler. Whoever
    has headers and a compiler of their own does not need the package. ``cc`` is a command line and
    has to compile for the target by itself.
    """
    for folder in include:
        if not folder.is_dir():
            what = "this is not a folder" if folder.exists() else "there is no such folder"
            raise InputError(Problem(f"--include {folder}", what, "name an existing folder"))
    own = tuple(include) or target.include
    needed = cc is None or not own
    pinned = None if include and not needed else _pinned(package, needed=needed)
    if cc is not None:
        command = _command(cc)
        own_headers = _own_headers(command)
    else:
        assert pinned is not None
        zig = pinned / ("zig.exe" if os.name == "nt" else "zig")
        command = (str(zig), "clang", "-target", target.triple)
        own_headers = pinned / "lib" / "include"
    defines = tuple(f"-D{define}" for define in target.defines)
    if include or pinned is None:
        folders, source = own, ""
    else:
        below = pinned / package.include

        def place(folder: Folder) -> Path:
            return (unpacked(folder.package) if folder.package else below) / folder.path

        folders = (*own, *map(place, (*target.folders, *target.libc)))
        first = target.folders[0].package or package
        source = f"{first.name} {first.version}"
    spellings = Spellings(folders) if target.any_case else None
    return Toolchain((*command, *defines), folders, own_headers, own, source, spellings)


def _pinned(package: Package, *, needed: bool) -> Path | None:
    """The folder of the package, installed in exactly the pinned version; None if it is not needed
    and not there.
    """
    remedy = (
        f"pip install {package.name}=={package.version}, or use other headers and another compiler"
        " with --include DIR and --cc CMD"
    )
    spec = importlib.util.find_spec(package.name)
    if spec is None or spec.origin is None:
        if not needed:
            return None
        raise InputError(Problem(package.name, "this package is not installed", remedy))
    folder = Path(spec.origin).parent
    metadata = folder.parent / f"{package.name}-{package.version}.dist-info"
    if not metadata.is_dir():  # importlib.metadata would say the same; importing it takes long
        if not needed:
            return None
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
