"""One word for one thing: class names are unique in the project, and limits are named MAX_ or MIN_."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("streaming", "server", "client", "demos", "benchmarks", "training")
OTHER_WORDS_FOR_A_LIMIT = ("MOST", "LARGEST", "LONGEST", "HIGHEST", "LEAST", "SHORTEST", "LOWEST")


def top_level_names() -> dict[str, list[str]]:
    """Class, type alias or constant -> the files that define it."""
    places = defaultdict(list)
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            names = [node.name] if isinstance(node, ast.ClassDef) else []
            if isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            for name in names:
                places[name].append(str(path.relative_to(ROOT)))
    return places


def test_class_names_are_unique():
    twice = {name: files for name, files in top_level_names().items() if len(files) > 1}
    assert {name: files for name, files in twice.items() if name[0].isupper() and not name.isupper()} == {}


def test_limits_are_called_max_or_min():
    assert [name for name in top_level_names() if name.strip("_").split("_")[0] in OTHER_WORDS_FOR_A_LIMIT] == []
