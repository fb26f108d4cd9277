"""The pages in Markdown: what they link to exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/design.md", "generator/ADDING.md")


def pages(checkout: Path) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=checkout, capture_output=True, text=True, check=True
    )
    return [checkout / name for name in listed.stdout.split()]


def test_every_link_leads_somewhere(checkout: Path) -> None:
    broken = []
    for page in pages(checkout):
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            target = link.partition("#")[0]
            if target and "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(checkout)}: {link}")
    assert not broken


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_there(checkout: Path, name: str) -> None:
    assert checkout / name in pages(checkout)
