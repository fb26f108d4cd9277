"""What rendered modules are refused for, although they are Python."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.generate.backend_module import render_backend_module
from vmm_arch_gen.generate.scopes import complaints, unbound
from vmm_arch_gen.project import Project


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def f():\n    return regs\n", (2, "the name regs is bound nowhere")),
        ("def f(x: Regs) -> None: ...\n", (1, "the name Regs is bound nowhere")),
        ("x: Final = 1\n", (1, "the name Final is bound nowhere")),
        ("y = [x for x in range(3)] + x\n", (1, "the name x is bound nowhere")),
        ("regs = 1\ndef f():\n    regs = 2\n", (3, "in f, the local name regs hides")),
        ("regs = 1\ndef f(regs):\n    return regs\n", (2, "in f, the local name regs hides")),
        ("def f(fd):\n    len = fd\n    return len\n", (2, "in f, the local name len hides")),
        ("def f(vcpu):\n    vcpu = 1\n    return vcpu\n", (2, "in f, the parameter vcpu is")),
        (
            "if 'kvm' == 'kvm':\n    x = 1\n",
            (1, "tests what is known when it is generated: if 'kvm' == 'kvm'"),
        ),
        (
            "def f():\n    return 1 if True else 2\n",
            (2, "tests what is known when it is generated: if True"),
        ),
    ],
)
def test_a_module_is_refused(text: str, complaint: tuple[int, str]) -> None:
    assert complaint in [
        (found.line, found.what[: len(complaint[1])]) for found in complaints(text)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "import os\nfrom typing import Any as Thing\ndef f(x: Thing) -> str:\n    return os.name\n",
        "class A:\n    size = 1\n    def f(self):\n        size = self.size\n        return size\n",
        "def f():\n    a = 1\n    def g():\n        return a\n    return g\n",
        "def f(self) -> A: ...\nclass A:\n    @property\n    def type(self) -> int: ...\n",
        "def f(x):\n    while True:\n        if x: break\n    return [y for y in x if y]\n",
        "try:\n    import a\nexcept ImportError as error:\n    print(error, __name__)\n",
    ],
)
def test_a_module_is_accepted(text: str) -> None:
    assert list(complaints(text)) == []


def test_names_of_annotations_count_as_used() -> None:
    assert unbound("from __future__ import annotations\ndef f(a: A, *b: B) -> C: ...\n") == {
        "A",
        "B",
        "C",
    }


OPERATIONS = "hypervisors/kvm/x86_64/operations.py.j2"
MODULE = "hypervisors/kvm/x86_64/module.py.j2"
VCPU = "hypervisors/kvm/vcpu.py.j2"
STATE = "hypervisors/kvm/x86_64/state.py"
STATES = "cpu/x86_64/states.py"


@pytest.mark.parametrize(
    ("target", "file", "old", "new", "complaint"),
    [
        (
            "kvm_x86_64",
            MODULE,
            "class Lapic(LapicPage, kvm_lapic_state)",
            "class Lapic(LapicPage)",
            "kvm/x86_64/state.py:69: SINKS: the type of lapic, Lapic, has no from_buffer_copy",
        ),
        (
            "whp_x86_64",
            "vmm_arch/whp/x86_64/registers.py",
            "def from_buffer_copy(",
            "def copied(",
            "whp/x86_64/state.py:8: SINKS: the type of registers, RegisterImage, has no from_buffer",
        ),
    ],
)
def test_an_image_that_cannot_be_copied(
    tmp_path: Path, paths: Project, target: str, file: str, old: str, new: str, complaint: str
) -> None:
    templates = tmp_path / "templates"
    shutil.copytree(paths.templates, templates)
    text = (templates / file).read_text()
    assert old in text
    (templates / file).write_text(text.replace(old, new))
    draft = render_backend_module(templates, read_abi_file(paths.abi / f"{target}.abi"), "# Marked")
    with pytest.raises(InputError) as refused:
        draft.finished()
    (problem,) = refused.value.problems
    assert re.sub(r":\d+:", ":N:", complaint) in re.sub(r":\d+:", ":N:", str(problem))


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        (
            OPERATIONS,
            "call({{ vcpu }}.fd, KVM_SET_REGS, {{ regs }})",
            "call(vpcu.fd, KVM_SET_REGS, {{ regs }})",
            "the name vpcu is bound nowhere; ",
        ),
        (
            OPERATIONS,
            "regs = Regs()",
            "regs = kvm = Regs()",
            "in get_regs, the local name kvm hides another thing of that name; give",
        ),
        (
            OPERATIONS,
            "regs = Regs()",
            'regs = Regs() if "kvm" == "kvm" else None',
            "tests what is known when it is generated: if 'kvm' == 'kvm'; ",
        ),
        (
            OPERATIONS,
            "regs = Regs()",
            "regs = Regs((",
            "get_regs is not Python: '(' was never closed; correct the line: regs = Regs((",
        ),
        (
            OPERATIONS,
            "regs = Regs()",
            "regs = {{ nothing }}",
            "'nothing' is undefined; correct the",
        ),
        (OPERATIONS, "KVM_SET_DEBUGREGS,", "KVM_SET_DEBUGREG,", "did you mean KVM_SET_DEBUGREGS"),
        (
            MODULE,
            "Sregs = kvm_sregs",
            "Sregs = kvm_sreg",
            "the name kvm_sreg is bound nowhere; did",
        ),
        (MODULE, "Sregs = kvm_sregs", "Sregs = (kvm_sregs", "records is not Python: '(' was never"),
        (
            VCPU,
            "self._debugging = 0",
            "self._debugging = Truth",
            "the name Truth is bound nowhere",
        ),
        (VCPU, "self._debugging = 0", "self._debugging = [", "vcpu_members is not Python: "),
        (
            STATE,
            "KVM_VCPUEVENT_VALID_SHADOW",
            "KVM_VCPUEVENT_SHADOW",
            "KVM_VCPUEVENT_SHADOW is bou",
        ),
        (STATE, '"vcpu.vm.irqchip"', '"cpu.vm.irqchip"', "the name cpu is bound nowhere; "),
        (
            STATES,
            '"LVT_NMI"',
            '"LVT_NMIS"',
            "the name LVT_NMIS is bound nowhere; did you mean LVT_",
        ),
        (STATES, '"entry.rip"', '"entree.rip"', "the name entree is bound nowhere; "),
    ],
)
def test_what_is_wrong_is_said_where_it_is_written(
    tmp_path: Path, paths: Project, file: str, old: str, new: str, complaint: str
) -> None:
    """With file and line of the template, never of the text that was made of it."""
    templates = tmp_path / "templates"
    shutil.copytree(paths.templates, templates)
    text = (templates / file).read_text()
    assert old in text
    line = text[: text.index(old)].count("\n") + 1
    (templates / file).write_text(text.replace(old, new))
    with pytest.raises(InputError) as refused:
        render_backend_module(
            templates, read_abi_file(paths.abi / "kvm_x86_64.abi"), "# Marked"
        ).finished()
    first = refused.value.problems[0]
    assert first.where == f"templates/{file}:{line}"
    assert complaint in str(first)


def test_the_refused_text_is_kept_and_named(
    tmp_path: Path, paths: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    templates = tmp_path / "templates"
    shutil.copytree(paths.templates, templates)
    file = templates / OPERATIONS
    file.write_text(file.read_text().replace("regs = Regs()", "regs = Rags()"))
    abi = read_abi_file(paths.abi / "kvm_x86_64.abi")
    with pytest.raises(InputError) as refused:
        render_backend_module(templates, abi, "# Marked").finished()
    named = re.search(r"it is line (\d+) of the refused text, (\S+)$", str(refused.value))
    assert named is not None
    assert named[2].startswith(str(tmp_path / "cache"))
    assert Path(named[2]).read_text().splitlines()[int(named[1]) - 1].strip() == "regs = Rags()"
    (tmp_path / "cache/vmm-arch/refused/kvm_x86_64.py").unlink()
    (tmp_path / "cache/vmm-arch/refused").rmdir()
    (tmp_path / "cache/vmm-arch/refused").write_text("no folder")
    with pytest.raises(InputError, match=r"the refused text could not be kept in .*: File exists"):
        render_backend_module(templates, abi, "# Marked").finished()


def test_several_mistakes_are_said_at_once(tmp_path: Path, paths: Project) -> None:
    templates = tmp_path / "templates"
    shutil.copytree(paths.templates, templates)
    for file, old, new in (
        (OPERATIONS, "regs = Regs()", "regs = Regs(("),
        (MODULE, "Sregs = kvm_sregs", "Sregs = (kvm_sregs"),
        (STATE, '"shape": "table"', '"shape": "tables"'),
        (STATES, '"rip": ', '"rip2": '),
        ("cpu/x86_64/exports.py", '"serve"', '"serves"'),
    ):
        text = (templates / file).read_text()
        assert old in text
        (templates / file).write_text(text.replace(old, new))
    with pytest.raises(InputError) as refused:
        render_backend_module(
            templates, read_abi_file(paths.abi / "kvm_x86_64.abi"), "# Marked"
        ).finished()
    places = {problem.where.split(":")[0] for problem in refused.value.problems}
    files = (OPERATIONS, MODULE, STATE, STATES, "cpu/x86_64/exports.py")
    assert places == {f"templates/{file}" for file in files}


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            '"vmm_arch.serve": ["serve"]',
            '"vmm_arch.serve": "serve"',
            "are 'serve', not a list of te",
        ),
        ('"vmm_arch.serve": ["serve"]', '"vmm_arch.serve": []', "are (), not a list of texts"),
        ('"vmm_arch.serve": ["serve"]', '"vmm_arch.serve": [3]', "vmm_arch.serve: 3 is not a name"),
        ('["serve"]', '["sreve"]', "vmm_arch.serve does not define sreve; did you mean serve? "),
        ('["serve"]', '["suppress"]', "vmm_arch.serve does not define suppress; write a name that"),
        ('["serve"]', '["serve", "serve"]', "serve is handed on twice; remove one"),
        (
            '"vmm_arch.serve"',
            '"vmm_arch.serv"',
            "there is no module vmm_arch.serv that a backend m",
        ),
        (
            '"vmm_arch.serve"',
            '"vmm_arch.whp"',
            "there is no module vmm_arch.whp that a backend may",
        ),
        ("EXPORTS = {", "EXPORT = {}\nEXPORTS = {", "has no table EXPORT; did you mean EXPORTS? "),
    ],
)
def test_what_is_handed_on_is_compared_with_the_modules(
    tmp_path: Path, paths: Project, old: str, new: str, complaint: str
) -> None:
    templates = tmp_path / "templates"
    shutil.copytree(paths.templates, templates)
    file = templates / "cpu/x86_64/exports.py"
    text = file.read_text()
    assert old in text
    line = text[: text.index(old)].count("\n") + 1
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as refused:
        render_backend_module(
            templates, read_abi_file(paths.abi / "kvm_x86_64.abi"), "# Marked"
        ).finished()
    assert f"templates/cpu/x86_64/exports.py:{line}: " in str(refused.value)
    assert complaint in str(refused.value)


def test_a_macro_that_the_frame_puts_in_is_missing(tmp_path: Path, paths: Project) -> None:
    templates = tmp_path / "templates"
    shutil.copytree(paths.templates, templates)
    file = templates / "cpu/x86_64/functions.py.j2"
    file.write_text(file.read_text().replace("macro machine_arguments()", "macro arguments()"))
    with pytest.raises(InputError) as refused:
        render_backend_module(templates, read_abi_file(paths.abi / "kvm_x86_64.abi"), "# Marked")
    (problem,) = map(str, refused.value.problems)
    assert problem.startswith("templates/cpu/x86_64/functions.py.j2: lacks the macro machine_arg")
    assert "write {% macro machine_arguments() %}; it may be empty" in problem
