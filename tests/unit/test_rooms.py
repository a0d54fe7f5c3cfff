"""The rooms of the architecture's page stand on each other as it says."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

HERE = Path(__file__).parents[2]
PACKAGE = HERE / "portfolio_ops"
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = {".".join(module.relative_to(HERE).with_suffix("").parts).removesuffix(".__init__") for module in MODULES}


def rooms() -> list[list[str]]:
    """The rooms from the top down; such as share a row stand on the same floor."""
    page = (HERE / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| ((?:`[\w./]+`(?:, )?)+) \|", page, re.MULTILINE)
    return [re.findall(r"`([\w.]+?)(?:/|\.py)`", row) for row in rows]


def room_of(name: str) -> str:
    """The room of a module of the package; the package's own file is the ground."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def imported(module: Path) -> Iterator[str]:
    """Modules of the package that one imports, wherever in it; those within `if TYPE_CHECKING` as well."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "portfolio_ops")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "portfolio_ops":
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in NAMES else node.module


def name_of(module: Path) -> str:
    return ".".join(module.relative_to(HERE).with_suffix("").parts).removesuffix(".__init__")


def test_the_page_names_every_room() -> None:
    there = {room_of(name) for name in NAMES} - {""}
    assert {room for floor in rooms() for room in floor} == there


def test_every_module_imports_only_what_lies_below_its_room() -> None:
    floors = {room: number for number, floor in enumerate(rooms()) for room in floor}
    upward = [
        f"{name_of(module)} imports {name}"
        for module in MODULES
        for name in imported(module)
        if (own := room_of(name_of(module))) != (other := room_of(name))
        and (not own or (other and floors[other] <= floors[own]))
    ]
    assert not upward


def test_no_two_modules_need_each_other() -> None:
    order = TopologicalSorter({name_of(module): {*imported(module)} - {name_of(module)} for module in MODULES})
    order.prepare()  # raises CycleError, and names the circle
