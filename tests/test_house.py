"""The house itself: layout, imports, packaging, the two commands."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import tokenzoo

FAMILIES = {"image", "audio", "text"}
ERROR = "checkpoints.error"  # one exception, no code: every floor may raise it
# What a folder may import when its modules are imported; configs holds no code.
FLOORS = {
    "kernels": set(),
    "zoo": {"kernels", ERROR},
    **{family: {"kernels", "zoo", ERROR} for family in FAMILIES},
    "checkpoints": {"zoo"},
    "configs": set(),
}
# What it may import besides, inside functions or for type checking alone.
LATE = {"zoo": {"checkpoints"}, **{family: {"checkpoints"} for family in FAMILIES}}
NOT_PACKAGES = {"docs", "tests", "build", "dist", "out", "runs", "data", "lightning_logs"}
HEAVY = ["torch", "lightning", "timm", "torchvision", "torchaudio", "diffusers", "transformers"]


def folders(checkout: Path) -> list[Path]:
    """Folders of the package: not docs or tests, not what a build or a run leaves, nothing hidden."""
    return sorted(
        folder
        for folder in checkout.iterdir()
        if folder.is_dir()
        and not folder.name.startswith((".", "_"))
        and folder.name not in NOT_PACKAGES
        and folder.suffix != ".egg-info"
        and not (folder / "pyvenv.cfg").exists()
    )


def imports(tree: ast.Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Every import of a module, and whether it runs when the module is imported."""

    def walk(node: ast.AST, now: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield child, now
            elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
                yield from walk(child, False)
            else:
                yield from walk(child, now and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    return walk(tree, True)


def targets(statement: ast.Import | ast.ImportFrom, depth: int) -> set[str]:
    """Folders of the package that an import names, "" for the root, from a module so many folders deep."""
    if isinstance(statement, ast.Import):
        paths = [alias.name.split(".") for alias in statement.names]
        return {"tokenzoo" for path in paths if path[0] == "tokenzoo"}
    if statement.level == 0:
        return {"tokenzoo"} if (statement.module or "").split(".")[0] == "tokenzoo" else set()
    if statement.level <= depth:
        return set()
    if statement.module == ERROR:
        return {ERROR}
    if statement.module:
        return {statement.module.split(".")[0]}
    return {alias.name if alias.name in FLOORS else "" for alias in statement.names}


def test_packages_are_the_folders_on_disk(checkout: Path) -> None:
    project = tomllib.loads((checkout / "pyproject.toml").read_text())
    listed = project["tool"]["setuptools"]["packages"]
    assert listed == ["tokenzoo", *(f"tokenzoo.{folder.name}" for folder in folders(checkout))]
    deeper = [path for folder in folders(checkout) for path in folder.glob("*/**/*.py")]
    assert deeper == [], "the folders are flat: a folder inside a folder would not be packaged"


def test_only_the_face_lies_at_the_root(checkout: Path) -> None:
    assert [path.name for path in checkout.glob("*.py")] == ["__init__.py"]


def test_importing_tokenzoo_imports_nothing_heavy(tmp_path: Path) -> None:
    code = f"import sys, tokenzoo; tokenzoo.names(); print([m for m in {HEAVY} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_every_name_of_the_face_is_there() -> None:
    for name in tokenzoo.__all__:
        assert getattr(tokenzoo, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'tokeniser'"):
        _ = tokenzoo.tokeniser


def test_each_module_is_there_once(checkout: Path) -> None:
    places = {checkout, Path(str(tokenzoo.__file__)).resolve().parent}
    names: dict[Path, set[str]] = {}
    for module in list(sys.modules.values()):
        file = Path(str(getattr(module, "__file__", None) or "")).resolve()
        # pytest may import the root __init__.py by itself; it is inert under any other name.
        if file.parent.parent in places and file.parent.name in FLOORS:
            names.setdefault(file.relative_to(file.parent.parent), set()).add(module.__name__)
    wrong = {str(file): found for file, found in names.items() if found != {dotted(file)}}
    assert wrong == {}


def dotted(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(["tokenzoo", *(part for part in parts if part != "__init__")])


@pytest.mark.parametrize("folder", sorted(FLOORS))
def test_no_import_goes_sideways_or_down(checkout: Path, folder: str) -> None:
    wrong = []
    for file in sorted((checkout / folder).glob("*.py")):
        for statement, now in imports(ast.parse(file.read_text())):
            allowed = {folder} | FLOORS[folder] | (set() if now else LATE.get(folder, set()))
            wrong += [
                f"{folder}/{file.name}:{statement.lineno} imports {target or 'the face'}"
                for target in targets(statement, depth=1) - allowed
            ]
    assert wrong == []


def test_the_floors_name_every_folder(checkout: Path) -> None:
    assert {folder.name for folder in folders(checkout)} == set(FLOORS)


def test_ci_runs_the_commands_of_the_readme(checkout: Path) -> None:
    readme = (checkout / "README.md").read_text()
    marked = re.findall(r"^<!-- ci: (\w+) -->\n```bash\n(.+)\n```$", readme, re.MULTILINE)
    assert [mark for mark, _ in marked] == ["run", "test"]
    listed = subprocess.run(
        [str(checkout / ".ci" / "run"), "--list"], capture_output=True, text=True, check=True
    )
    assert listed.stdout.splitlines() == [command for _, command in marked]


def test_ci_tries_the_installed_package(checkout: Path) -> None:
    file = Path(str(tokenzoo.__file__)).resolve()
    assert not (os.environ.get("CI") and checkout in file.parents), f"{file} lies in the checkout"


def test_the_wheel_holds_the_package_and_its_data(checkout: Path, tmp_path: Path) -> None:
    # Built from a copy: a build leaves build/ behind, from which deleted modules would ship.
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "out", "golden", "*.egg-info", "__pycache__")
    shutil.copytree(checkout, source, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {
        name.removeprefix("tokenzoo/")
        for name in zipfile.ZipFile(wheel).namelist()
        if name.startswith("tokenzoo/")
    }
    files = [path for folder in folders(source) for path in folder.rglob("*") if path.is_file()]
    expected = {"__init__.py", "py.typed", *(str(path.relative_to(source)) for path in files)}
    assert held == expected
    assert any(name.startswith("image/samples/") and name.endswith(".jpg") for name in held)
    assert all(name.startswith("tokenzoo") for name in zipfile.ZipFile(wheel).namelist())
