"""What ``show`` says of things, and how it draws records."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from requirements import require
from test_abi_text import sealed
from test_cli import Copy
from test_cli import copy as copy  # a fixture
from test_compare import names
from vmm_arch_gen.abi.model import IoctlRules
from vmm_arch_gen.abi.reader import read_abi_file
from vmm_arch_gen.abi.text import FORMAT
from vmm_arch_gen.abi.writer import write_abi
from vmm_arch_gen.diagnostics import InputError
from vmm_arch_gen.project import Project
from vmm_arch_gen.show.find import defined, find
from vmm_arch_gen.show.picture import picture
from vmm_arch_gen.show.text import as_json, as_text
from vmm_arch_gen.targets import TargetTable

import headers

SVG = "{http://www.w3.org/2000/svg}"

HEADER = """
#define RUN_FLAG_FAST 0x1
#define RUN_FLAG_MASK 0xf0
#define RUN_LIMIT 12
enum mode { OFF, ON };
struct inner { char a; short b; };
struct run {
    unsigned char c;
    struct inner inner;
    union { int x; struct { short lo, hi; } parts; };
    unsigned on : 1, : 3, level : 4;
    void (*callback)(int);
    struct { char k; } many[2];
    long rest[];
};
int go(struct run *run, int times);
"""


@pytest.fixture
def folder(table: TargetTable, tmp_path: Path) -> Path:
    """A folder with the facts of the header above."""
    abi = headers.prove(HEADER, table.targets["kvm_x86_64"], table, tmp_path)
    (tmp_path / "kvm_x86_64.abi").write_text(write_abi(abi))
    return tmp_path


def shown(folder: Path, name: str, *, expand: bool = False) -> str:
    found, others = find(folder, name, ())
    lines = [line for line, _ in as_text(found, others, expand=expand)]
    return "\n".join(lines[2:]) + "\n"


def test_a_record_as_pahole_shows_it(folder: Path) -> None:
    assert shown(folder, "run") == """\
struct run: 32 bytes, aligned 8, in test.h
offset   size
     0      1  unsigned char c;
     1      1  /* hole */
     2      4  struct inner inner;
     6      2  /* hole */
     8      4  union {
     8      4    int x;
     8      4    struct {
     8      2      short lo;
    10      2      short hi;
                 } parts;
               };
  12.0  1 bit  unsigned int on : 1;
  12.1  3 bit  /* hole */
  12.4  4 bit  unsigned int level : 4;
    13      3  /* hole */
    16      8  void(int)* callback;
    24      2  struct {
    24      1    char k;
               } many[2];
    26      6  /* hole */
    32      0  long rest[];
5 holes, 12 bytes and 3 bits
"""  # fmt: skip


def test_records_with_names_are_shown_when_asked(folder: Path) -> None:
    expanded = shown(folder, "struct run", expand=True)
    assert "     2      4  struct inner {\n     2      1    char a;\n" in expanded
    assert "     4      2    short b;\n               } inner;\n" in expanded


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("RUN_*", "RUN_FLAG_FAST  0x1 = bit 0, in test.h\nRUN_FLAG_MASK  0xf0 = bits 4 to 7, in test.h\nRUN_LIMIT      12 = 0xc, in test.h\n"),
        ("ON", "ON  1, in enum mode\n"),
        ("enum mode", "enum mode: unsigned int, in test.h\n  OFF  0\n  ON   1\n"),
        ("go", "go, in test.h\nint go(\n    struct run *run,\n    int times,\n);\n"),
    ],
)  # fmt: skip
def test_other_things(name: str, text: str, folder: Path) -> None:
    assert shown(folder, name) == text


GENERIC = """
#define _IOC(direction, type, nr, size) ((direction) << 30 | (size) << 16 | (type) << 8 | (nr))
#define _IO(type, nr) _IOC(0U, type, nr, 0)
#define _IOR(type, nr, size) _IOC(2U, type, nr, sizeof(size))
#define _IOW(type, nr, size) _IOC(1U, type, nr, sizeof(size))
#define _IOWR(type, nr, size) _IOC(3U, type, nr, sizeof(size))
"""
BSD = """
#define IOC_VOID 0x20000000UL
#define IOC_OUT 0x40000000UL
#define IOC_IN 0x80000000UL
#define _IOC(inout, type, nr, size) \\
    ((unsigned long)((inout) | ((size) & 0x1fff) << 16 | (type) << 8 | (nr)))
#define _IO(type, nr) _IOC(IOC_VOID, type, nr, 0)
#define _IOR(type, nr, size) _IOC(IOC_OUT, type, nr, sizeof(size))
#define _IOW(type, nr, size) _IOC(IOC_IN, type, nr, sizeof(size))
#define _IOWR(type, nr, size) _IOC(IOC_IN | IOC_OUT, type, nr, sizeof(size))
"""
IOCTLS = """
struct page { char bytes[4097]; };
#define NONE _IO(0xAE, 1)
#define READ _IOR(0xAE, 2, struct page)
#define WRITE _IOW(0xAE, 3, struct page)
#define BOTH _IOWR(0xAE, 4, struct page)
"""


@pytest.mark.parametrize(
    ("rules", "macros", "values"),
    [
        ("generic", GENERIC, ("0xae01", "0x9001ae02", "0x5001ae03", "0xd001ae04")),
        ("bsd", BSD, ("0x2000ae01", "0x5001ae02", "0x9001ae03", "0xd001ae04")),
    ],
)
def test_ioctls_are_taken_apart_by_the_rules_of_their_system(
    rules: IoctlRules, macros: str, values: tuple[str, ...], table: TargetTable, tmp_path: Path
) -> None:
    """By name and by number, from facts that the compiler agreed to."""
    target = dataclasses.replace(table.targets["kvm_x86_64"], ioctl_rules=rules)
    abi = headers.prove(macros + IOCTLS, target, table, tmp_path)
    (tmp_path / "kvm_x86_64.abi").write_text(write_abi(abi))
    said = ("none 0xae/0x1", "read 0xae/0x2", "write 0xae/0x3", "readwrite 0xae/0x4")
    for name, value, parts in zip(("NONE", "READ", "WRITE", "BOTH"), values, said, strict=True):
        size = ", 4097 bytes: struct page" if name != "NONE" else ""
        for asked in (name, value):
            assert shown(tmp_path, asked) == f"{name}  {value} = {parts}{size}\n"
        ((json_ioctl,),) = (
            found["ioctls"]
            for found in json.loads(as_json(find(tmp_path, name, ())[0], expand=False))
        )
        assert json_ioctl["size"] == (4097 if size else 0)


@pytest.mark.parametrize(("rules", "macros"), [("generic", BSD), ("bsd", GENERIC)])
def test_a_target_with_another_systems_ioctl_rules_is_refused(
    rules: IoctlRules, macros: str, table: TargetTable, tmp_path: Path
) -> None:
    target = dataclasses.replace(table.targets["kvm_x86_64"], ioctl_rules=rules)
    with pytest.raises(InputError) as refused:
        headers.prove(macros + IOCTLS, target, table, tmp_path)
    first = refused.value.problems[0]
    assert first.where.startswith("test.h: ")
    assert f"but by the rules '{rules}' " in first.what


def test_systems_have_the_rules_of_their_headers(paths: Project) -> None:
    for target, name, value, parts in (
        ("kvm_x86_64", "KVM_SET_REGS", "0x4090ae82", "write 0xae/0x82, 144 bytes: struct kvm_regs"),
        ("kvm_powerpc64le", "KVM_SET_REGS", "0x8188ae82", "write 0xae/0x82, 392 bytes: struct kvm_regs"),
        ("bhyve_x86_64", "VM_RUN", "0x80207601", "write 0x76/0x1, 32 bytes: struct vm_run"),
        ("bhyve_riscv64", "VM_REINIT", "0x20007605", "none 0x76/0x5"),
        ("xen_x86_64", "IOCTL_PRIVCMD_HYPERCALL", "0x305000", "none 0x50/0x0, 48 bytes: privcmd_hypercall_t"),
        ("nvmm_x86_64", "NVMM_IOC_CAPABILITY", "0x40684e00", "read 0x4e/0x0, 104 bytes : struct nvmm_ioc_capability"),
        ("openbsd_vmm_x86_64", "VMM_IOC_INTR", "0x800c5606", "write 0x56/0x6, 12 bytes: struct vm_intr_params"),
    ):  # fmt: skip
        for asked in (name, value):
            found, _ = find(paths.abi, asked, (target,))
            lines = [t for t, _ in as_text(found, (), expand=False)]
            said = " ".join("\n".join(lines).partition(f"{name}  ")[2].split())
            assert said == f"{value} = {parts}"


def test_an_ioctls_number_may_be_written_in_any_way(paths: Project) -> None:
    for name in ("1083223682", "0X4090AE82", "0x04090ae82"):
        (found,), _ = find(paths.abi, name, ("kvm_x86_64",))
        assert found.ioctls == ("KVM_SET_REGS",)


def test_a_number_that_is_no_ioctls_is_a_value(paths: Project, folder: Path) -> None:
    """Constants' and enumerators', however they and it are written; no part of another number."""
    for name in ("0xC0000080", "3221225600"):
        (found,), others = find(paths.abi, name, ())
        assert (found.abi.target, found.constants, others) == ("msr_x86_64", ("MSR_EFER",), [])
    for name, constants in (
        ("0xc", {"RUN_LIMIT"}),
        ("1", {"RUN_FLAG_FAST", "ON"}),
        ("0xF0", {"RUN_FLAG_MASK"}),
    ):
        (found,), _ = find(folder, name, ())
        assert set(found.constants) == constants
        assert (found.records, found.ioctls, found.typedefs, found.functions) == ((),) * 4
    with pytest.raises(InputError, match="0xf: nothing in the headers of any target has this"):
        find(folder, "0xf", ())


def test_every_name_of_every_target_is_found_where_it_is_defined(paths: Project) -> None:
    for path in sorted(paths.abi.glob("*.abi")):
        abi = read_abi_file(path)
        numbers = {hex(ioctl.value) for ioctl in abi.ioctls}
        plain = {name.rpartition(" ")[2] for name in names(abi)}
        assert defined(path.read_text()) == plain | numbers


def test_only_targets_that_can_show_a_name_are_named(paths: Project) -> None:
    """Others leave it out, or have longer names with it inside."""
    (found,), others = find(paths.abi, "KVM_GET_CPUID2", ())
    assert (found.abi.target, others) == ("kvm_x86_64", [])
    (found,), others = find(paths.abi, "KVM_CAP_XSAVE", ())
    text = (paths.abi / "kvm_s390x.abi").read_text()
    assert ("KVM_CAP_XSAVE" in text, "kvm_s390x" in others) == (True, False)


def test_the_facts_are_checked_but_not_their_order(folder: Path) -> None:
    """Which would take longer than all the rest."""
    path = folder / "kvm_x86_64.abi"
    text = path.read_text()
    fast, limit = (next(ln for ln in text.splitlines() if n in ln) for n in ("_FAST", "_LIMIT"))
    swapped = text.replace(fast, "?").replace(limit, fast).replace("?", limit)
    path.write_text(sealed(swapped))
    assert shown(folder, "RUN_LIMIT") == "RUN_LIMIT  12 = 0xc, in test.h\n"
    for wrong, message in ((text.replace("= 12", "= 13"), "digest"), (sealed(text.replace("is 32 bytes", "is 40 bytes")), "contradicts itself")):  # fmt: skip
        path.write_text(wrong)
        with pytest.raises(InputError, match=message):
            find(folder, "run", ())


def test_what_does_not_fit_stands_below(paths: Project) -> None:
    found, _ = find(paths.abi, "KVM_REGISTER_COALESCED_MMIO", ("kvm_x86_64",))
    assert [line for line, _ in as_text(found, (), expand=False)][2:] == [
        "KVM_REGISTER_COALESCED_MMIO  0x4010ae67 = write 0xae/0x67, 16 bytes",
        "    : struct kvm_coalesced_mmio_zone",
    ]


def test_the_other_targets_are_named(paths: Project) -> None:
    found, others = find(paths.abi, "kvm_regs", ())
    assert len(found) == 1
    assert {found[0].abi.target, *others} == {p.stem for p in paths.abi.glob("kvm_*.abi")}


@pytest.mark.parametrize(
    ("name", "targets", "message"),
    [
        ("kvm_rum", (), "kvm_rum: no such name in the headers of any target; did you mean kvm_run"),
        ("kvm_sregs", ("mshv_x86_64",), "kvm_sregs: no such name in the headers of mshv_x86_64"),
        ("KVM_RUM", (), "of any target; did you mean KVM_RUN or kvm_run or "),
        ("Kvm_Run", (), "of any target; did you mean kvm_run or KVM_RUN or "),
        ("KVM_COALESCED_MMIO_MAX", (), "KVM_COALESCED_MMIO_MAX: left out of linux/kvm.h: names PAGE_SIZE, which the headers do not define; only the header itself has it"),
        ("KVM_GET_CPUID2", ("kvm_s390x",), "KVM_GET_CPUID2: left out of linux/kvm.h: names kvm_cpuid2, which"),
        ("request_interrupt_window", (), "request_interrupt_window: is not a name of its own, but a member of kvm_run"),
        ("Low64", (), "is not a name of its own, but a member of WHV_UINT128; show WHV_UINT128"),
        ("NOTHING_AT_ALL_*", (), "a wildcard finds parts of names"),
        ("kvm_regs", ("kvm_x8664",), "--target kvm_x8664: there is no such target; did you mean kvm_x86_64"),
    ],
)  # fmt: skip
def test_what_is_not_there(
    name: str, targets: tuple[str, ...], message: str, paths: Project
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        find(paths.abi, name, targets)


def test_json_has_offsets_bits_and_holes(folder: Path) -> None:
    (facts,) = json.loads(as_json(find(folder, "run", ())[0], expand=False))
    (record,) = facts["records"]
    assert (record["size"], record["align"], record["header"]) == (32, 8, "test.h")
    assert [m.get("name", "hole") for m in record["members"][:5]] == [
        "c",
        "hole",
        "inner",
        "hole",
        "",
    ]
    assert {"name": "level", "type": "unsigned int", "offset": 12, "bit": 4, "bits": 4} in record[
        "members"
    ]
    assert {"hole": True, "offset": 13, "size": 3} in record["members"]


def test_every_record_of_every_target_can_be_shown_and_drawn(paths: Project) -> None:
    for path in sorted(paths.abi.glob("*.abi")):
        found, _ = find(paths.abi, "*", (path.stem,))
        for line, _ in as_text(found, (), expand=True):
            assert line == line.rstrip()
            names = len(line) - len(line.partition("  ")[2].lstrip())  # the column of names
            long = len(" ".join(line.split()[2:])) > 60 or names > 34  # a type, or a name
            assert len(line) <= 80 or long, line
        if any(things.records for things in found):
            ElementTree.fromstring(picture(found, path.stem, expand=False, page=False))


def test_a_picture_is_to_scale(folder: Path) -> None:
    found, _ = find(folder, "run", ())
    svg = ElementTree.fromstring(picture(found, "run", expand=False, page=False))
    widths = {}
    for group in svg.iter(f"{SVG}g"):
        (title,) = group.iter(f"{SVG}title")
        rect = next(iter(group.iter(f"{SVG}rect")))
        widths[str(title.text).partition(":")[0]] = (
            float(rect.get("x", 0)),
            float(rect.get("width", 0)),
        )
    byte = widths["unsigned char c"][1]
    start = widths["unsigned char c"][0]
    assert widths["struct inner inner"] == pytest.approx((start + 2 * byte, 4 * byte))
    assert widths["unsigned int on"] == pytest.approx((start + 4 * byte, byte / 8))
    assert widths["union"] == pytest.approx((start, 4 * byte))
    assert widths["void(int)* callback"] == pytest.approx((start, 8 * byte))


def test_only_records_are_drawn(folder: Path) -> None:
    with pytest.raises(
        InputError, match="RUN_LIMIT: this is not a record, and only a record can be"
    ):
        picture(find(folder, "RUN_LIMIT", ())[0], "RUN_LIMIT", expand=False, page=False)


def test_the_readmes_example_is_what_show_says(paths: Project, checkout: Path) -> None:
    found, _ = find(paths.abi, "kvm_msr_entry", ("kvm_x86_64",))
    said = "\n".join(line for line, _ in as_text(found, (), expand=False))
    shown = f"$ vmm-arch-gen show kvm_msr_entry\n{said}\n$ "
    assert shown in (checkout / "README.md").read_text()


def test_the_readmes_picture_is_what_show_draws(paths: Project, checkout: Path) -> None:
    found, _ = find(paths.abi, "kvm_run", ("kvm_x86_64",))
    svg = picture(found, "kvm_run", expand=False, page=False)
    assert (checkout / "headers/kvm_run.svg").read_text() == f"{svg}\n"


CHECK = """
<script>
addEventListener("load", () => {
  const wrong = [];
  for (const group of document.querySelectorAll("svg g")) {
    const boxes = [...group.querySelectorAll("rect")].map(box => box.getBBox());
    for (const text of group.querySelectorAll("text")) {
      const said = text.getBBox();
      if (!boxes.some(box => said.x >= box.x - 1 && said.x + said.width <= box.x + box.width + 1
          && said.y >= box.y - 2 && said.y + said.height <= box.y + box.height + 2))
        wrong.push(text.textContent);
    }
  }
  const ink = getComputedStyle(document.querySelector("svg text")).fill;
  const page = getComputedStyle(document.querySelector("svg .page")).fill;
  document.title = `outside: ${wrong.join(" ")}; ${ink} on ${page}`;
});
</script>
"""


@pytest.mark.parametrize(("scheme", "colours"), [(1, "rgb(31, 35, 40) on rgb(255, 255, 255)"), (0, "rgb(240, 246, 252) on rgb(13, 17, 23)")])  # fmt: skip
def test_a_browser_shows_it_in_light_and_dark(
    scheme: int, colours: str, paths: Project, tmp_path: Path
) -> None:
    """No text stands outside its box, with the browser's own fonts."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    require(browser is not None, "no chromium")
    assert browser is not None
    found, _ = find(paths.abi, "kvm_run", ("kvm_x86_64",))
    page = tmp_path / "page.html"
    page.write_text(
        picture(found, "kvm_run", expand=False, page=True).replace("</body>", f"{CHECK}</body>")
    )
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", f"--blink-settings=preferredColorScheme={scheme}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    title = re.search("<title>(.*?)</title>", done.stdout)
    assert title is not None, done.stderr
    assert title[1] == f"outside: ; {colours}"


# -- the commands, as they are used ------------------------------------------------------------


def git(copy: Copy, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=copy.root, check=True, capture_output=True)


def test_diff_of_files_folders_and_revisions(copy: Copy) -> None:
    git(copy, "init", "-q")
    git(copy, "add", "headers")
    git(copy, "commit", "-qm", "before")
    riscv = copy.root / "headers/abi/kvm_riscv64.abi"
    before = copy.root / "before.abi"
    shutil.copy(riscv, before)
    assert copy.run("diff", "HEAD") == (0, "no changes\n", "")
    text = riscv.read_text()
    changed = text.replace("constant KVM_API_VERSION = 12", "constant KVM_API_VERSION = 13")
    riscv.write_text(sealed(changed))
    for old in ("HEAD", "HEAD:headers/abi", "HEAD:headers/abi/kvm_riscv64.abi", "before.abi"):
        status, out, err = copy.run("diff", old)
        assert (status, err) == (11, "")
        assert out.splitlines()[0] == "kvm_riscv64: 1 breaking change"
        assert out.splitlines()[-2:] == ["renumbered: 1 constant", "! KVM_API_VERSION  12 -> 13"]
    riscv.write_text(
        sealed(text.replace("constant KVM_A", "constant KVM_AA = 1 in x.h\nconstant KVM_A", 1))
    )
    assert copy.run("diff", "before.abi", "headers/abi/kvm_riscv64.abi")[0] == 10
    status, out, _ = copy.run("diff", "HEAD", "--format", "json")
    assert json.loads(out)["status"] == status == 10
    status, out, _ = copy.run("diff", "HEAD", "--format", "markdown")
    assert out.startswith(
        "### `kvm_riscv64`: 1 compatible change\n\n<details><summary>added: 1 con"
    )
    riscv.unlink()
    status, out, _ = copy.run("diff", "HEAD")
    assert (status, out) == (11, "kvm_riscv64: the target was removed\n  from Linux 7.2.0 headers, ziglang 0.17.1\n")  # fmt: skip
    status, out, _ = copy.run("diff", "headers/abi", "HEAD")
    assert (status, out.splitlines()[0]) == (10, "kvm_riscv64: a new target")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["diff", "nosuch"], "nosuch: there is no such file or folder, and no such git revision here; name .abi files"),
        (["diff", "HEAD:nosuch"], "HEAD:nosuch: there is no file or folder nosuch in this revision; git ls-tree HEAD"),
        (["diff", "HEAD"], "HEAD: this git revision has no .abi files; name one that has, or extract"),
        (["diff", "generator/README.md"], "generator/README.md: is not an .abi file; name .abi files"),
        (["diff", "generator"], "generator: there are neither .abi files nor headers in this folder"),
        (["diff", "headers/abi/kvm_s390x.abi", "headers/abi/kvm_riscv64.abi"], "holds the facts of target 'kvm_s390x', but headers/abi/kvm_riscv64.abi those of kvm_riscv64; name two"),
        (["diff", "old.abi"], f"old.abi: has the outdated format 1; this generator reads {FORMAT}; extract its headers"),
        (["diff", "newer.abi"], f"newer.abi:1: has format 99, newer than the {FORMAT}"),
        (["diff", "headers/abi", "--only", "kvm_vax"], "kvm_vax: neither version has this target; did you mean kvm_"),
        (["diff", "headers/shims", "--only", "kvm_x86_64"], "name the folder that has it with --include DIR, for diff as in FOLDER:FOLDER"),
        (["diff", "headers/abi/kvm_s390x.abi", "--only", "kvm_x86_64"], "headers/abi/kvm_s390x.abi: holds the facts of kvm_s390x, but --only names kvm_x86_64; leave --only away"),
        (["diff", ""], "'': is empty; name .abi files"),
        (["diff", "headers/abi", ""], "'': is empty; name .abi files"),
        (["diff", ":headers/abi"], "':headers/abi': a part of it is empty; name .abi files"),
        (["diff", "headers/shims:"], "'headers/shims:': a part of it is empty; name .abi files"),
        (["diff", "headers/shims", "headers/shims"], "headers/shims: nothing says which target these headers are for; name it with --only"),
        (["show", "kvm_regz"], "kvm_regz: no such name in the headers of any target; did you mean kvm_regs"),
        (["show", "kvm_regs", "--abi", "templates"], "templates: there are no .abi files here"),
        (["show", "KVM_RUN", "--format", "svg"], "KVM_RUN: this is not a record, and only a record can be drawn"),
    ],
)  # fmt: skip
def test_bad_input_is_named(arguments: list[str], message: str, copy: Copy) -> None:
    git(copy, "init", "-q")
    git(copy, "commit", "-qm", "empty", "--allow-empty")
    (copy.root / "old.abi").write_text("vmm-arch abi 1\ntarget kvm_x86_64\n")
    (copy.root / "newer.abi").write_text("vmm-arch abi 99\ntarget kvm_x86_64\n")
    status, out, err = copy.run(*arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_outside_a_repository_that_is_said(copy: Copy) -> None:
    environment = {"GIT_CEILING_DIRECTORIES": str(copy.root.parent)}
    status, out, err = copy.run("diff", "HEAD", environment=environment)
    assert (status, out) == (2, "")
    assert "HEAD: there is no such file or folder, and this is not a git repository" in err


def test_a_full_disk_is_named(copy: Copy) -> None:
    for arguments in ("show kvm_run", "show kvm_run --format json", "diff headers/abi headers/abi"):
        command = [sys.executable, "-m", "vmm_arch_gen", *arguments.split(" ")]
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                command, cwd=copy.root, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
                env=os.environ | {"PYTHONPATH": str(copy.root / "generator")},
            )  # fmt: skip
        message = "error: standard output: cannot be written: No space left on device; send it elsewhere\n"
        assert (done.returncode, done.stderr) == (2, message)


def test_they_need_no_templates_and_no_parser(copy: Copy) -> None:
    """So that they answer at once."""
    for module in ("jinja2", "black", "pycparser"):
        (copy.root / "generator" / f"{module}.py").write_text(f"raise SystemError('{module}')")
    assert copy.run("show", "kvm_regs")[0] == 0
    assert copy.run("diff", "headers/abi", "headers/abi")[0] == 0
