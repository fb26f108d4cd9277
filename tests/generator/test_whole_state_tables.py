"""The tables from which saving and restoring is generated: what is wrong with them is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.arch.vocabulary import read_vocabulary
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.generate.backend_module import render_backend_module
from vmm_arch_gen.project import Project

STATE = "hypervisors/kvm/x86_64/state.py"
OPERATIONS = "hypervisors/kvm/x86_64/operations.py.j2"
VOCABULARY = "vmm_arch/x86_64/vocabulary.py"


def refusal(paths: Project, folder: Path, file: str, old: str, new: str) -> str:
    templates = folder / "templates"
    shutil.copytree(paths.templates, templates)
    path = templates / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        render_backend_module(templates, read_abi_file(paths.abi / "kvm_x86_64.abi"), "# x")
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        (
            STATE,
            '        "reads": "read_xcrs",\n',
            "",
            "xcrs cannot be read, so that templates/vmm_arch/protocols/x86_64.py:",
        ),
        (STATE, '"read_xcrs"', '"reads_xcrs"', "xcrs is read by reads_xcrs, which is not a macro"),
        (
            STATE,
            '"restore_sregs"',
            '"restores_sregs"',
            "sregs is restored by restores_sregs, which is not a macro here; did you mean restore_s",
        ),
        (STATE, '"kvm_sregs2"', '"kvm_sregs3"', "sregs is read into is not in the headers: kvm_sr"),
        (STATE, '"form": "CpuidForm()",', "", "cpuid is read, and is not a record; add "),
        (STATE, '"of": "machine"', '"of": "vm"', "the of of pic is 'vm'; write, for example, "),
        (
            STATE,
            '"msrs": ("msrs", {"*": "*"})',
            '"msrs": ("tsc", {"*": "*"})',
            "tsc is only read and written whole, and has slots",
        ),
        (
            OPERATIONS,
            "{% macro read_xcrs(vcpu, xcrs) %}",
            "{% macro read_xcrs(vcpu) %}",
            "read_xcrs has the parameters (vcpu); write {% macro read_xcrs(vcpu, xcrs) %}",
        ),
        (
            OPERATIONS,
            "{% macro read_xcrs(",
            "{% macro save_vcpu(vcpu) %}{% endmacro %}\n{% macro read_xcrs(",
            "save_vcpu is planned from SINKS and ORDER; remove the macro",
        ),
        (
            OPERATIONS,
            "{% macro read_xcrs(",
            '{% set save_vm = unsupported("it is too long") %}\n{% macro read_xcrs(',
            "save_vm is declared unsupported, and take_snapshot needs it; declare it, too: {% set ta",
        ),
        (STATE, '"running": ("clock.*",)', '"running": "clock.*"', "the running of clock is "),
    ],
)
def test_what_is_wrong_with_a_sink_that_is_saved(
    paths: Project, tmp_path: Path, file: str, old: str, new: str, complaint: str
) -> None:
    found = refusal(paths, tmp_path, file, old, new)
    assert f"templates/{file}:" in found
    assert complaint in found


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            '    "cr0": {\n',
            '    "cr9": {\n',
            "BITS: there is no element cr9; did you mean r9 or cr8",
        ),
        ('"PE": 0,', '"PE": "0",', "BITS: the bits of cr0 are not numbers by their names"),
        ('"PE": 0,', '"PE": 1,', "BITS: two bits of cr0 have the same number"),
    ],
)
def test_what_is_wrong_with_the_names_of_bits(
    paths: Project, tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    file = tmp_path / VOCABULARY
    file.parent.mkdir(parents=True)
    text = (paths.templates / VOCABULARY).read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(InputError, match=complaint):
        read_vocabulary(tmp_path, "x86_64")
