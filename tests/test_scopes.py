"""What rendered modules are refused for, although they are Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from vmm_arch_gen.abi.text import read_abi_file
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.generate.backend_module import render_backend_module
from vmm_arch_gen.generate.scopes import complaints, unbound
from vmm_arch_gen.project import Project


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def f():\n    return regs\n", "the name regs is bound nowhere"),
        ("def f(x: Regs) -> None: ...\n", "the name Regs is bound nowhere"),
        ("x: Final = 1\n", "the name Final is bound nowhere"),
        ("y = [x for x in range(3)] + x\n", "the name x is bound nowhere"),
        ("regs = 1\ndef f():\n    regs = 2\n", "in f, line 2, the local name regs hides"),
        ("regs = 1\ndef f(regs):\n    return regs\n", "the local name regs hides"),
        ("def f(fd):\n    len = fd\n    return len\n", "the local name len hides"),
        ("def f(vcpu):\n    vcpu = 1\n    return vcpu\n", "in f, line 1, the parameter vcpu is"),
        ("if 'kvm' == 'kvm':\n    x = 1\n", "line 1 tests what is known: if 'kvm' == 'kvm'"),
        ("def f():\n    return 1 if True else 2\n", "line 2 tests what is known: if True"),
    ],
)
def test_a_module_is_refused(text: str, complaint: str) -> None:
    assert any(complaint in found for found in complaints(text)), list(complaints(text))


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


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            "call({{ vcpu }}.fd, KVM_SET_REGS, {{ regs }})",
            "call(vpcu.fd, KVM_SET_REGS, {{ regs }})",
            "kvm_x86_64.py: the name vpcu is bound nowhere",
        ),
        (
            "regs = Regs()",
            "regs = kvm = Regs()",
            "kvm_x86_64.py: in get_regs, line ",
        ),
        (
            "regs = Regs()",
            'regs = Regs() if "kvm" == "kvm" else None',
            "tests what is known: if 'kvm' == 'kvm'",
        ),
        ("regs = Regs()", "regs = Regs((", "renders to something that is not Python"),
        ("regs = Regs()", "regs = {{ nothing }}", "operations.py.j2"),
    ],
)
def test_a_backend_template_that_goes_wrong_is_refused(
    tmp_path: Path, paths: Project, old: str, new: str, complaint: str
) -> None:
    import shutil

    templates = tmp_path / "templates"
    shutil.copytree(paths.templates, templates)
    file = templates / "hypervisors/kvm/x86_64/operations.py.j2"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(InputError) as refused:
        render_backend_module(templates, read_abi_file(paths.abi / "kvm_x86_64.abi"), "# Marked")
    assert complaint in str(refused.value)
