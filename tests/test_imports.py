"""The import arrows of the design: from the syntax tree of every file, imports inside functions too, and in practice.

tests, demos, benchmarks, training -> server | client -> streaming.engine -> stream, codec -> encoder, decoder, layers
-> protocol | audio | tokens -> config -> errors;     client -> only protocol, audio, tokens, config, errors
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("streaming", "server", "client")
OURS = (*PACKAGES, "demos", "benchmarks", "training", "tests")

NOTHING: frozenset[str] = frozenset()
ERRORS = frozenset({"streaming.errors"})
CONFIG = ERRORS | {"streaming.config"}
FORMATS = CONFIG | {"streaming.audio", "streaming.tokens", "streaming.torch_file"}
WIRE = CONFIG | {"streaming.protocol"}
NUMERIC = FORMATS | {
    f"streaming.{name}"
    for name in ("layers", "encoder", "decoder", "lane", "stepper", "snapshot", "priors", "stream", "codec")
}
MAY_IMPORT = {
    "streaming.errors": NOTHING,
    "streaming.config": ERRORS,
    "streaming.audio": CONFIG,
    "streaming.torch_file": CONFIG,
    "streaming.tokens": CONFIG,
    "streaming.protocol": WIRE,
    "streaming.layers": CONFIG | {"streaming.layers", "streaming.snapshot", "streaming.priors"},
    "streaming.engine": NUMERIC | {"streaming.engine"},
    "streaming": NUMERIC,
    "server": NUMERIC | WIRE | {"streaming", "streaming.calibration", "streaming.engine", "server"},
    "client": FORMATS | WIRE | {"client"},
}
"""Prefix of a module (the longest that fits counts) -> prefixes of what of ours it may import."""
STANDARD_ONLY = ("streaming.errors", "streaming.config", "streaming.protocol")
TORCH = {"torch", "transformers", "safetensors", "torchaudio"}
NO_TORCH = (*STANDARD_ONLY, "streaming.audio", "streaming.tokens", "streaming.torch_file", "streaming.engine.scheduler")


def files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Every module that the file imports anywhere; names that are modules themselves count as such."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                is_module = (ROOT / Path(*inner.split("."))).with_suffix(".py").exists()
                found.add(inner if is_module or (ROOT / Path(*inner.split("."))).is_dir() else node.module)
    return found


def covered(module: str, prefixes: frozenset[str]) -> bool:
    return any(module == prefix or (prefix != "streaming" and module.startswith(prefix + ".")) for prefix in prefixes)


def rule_for(module: str) -> frozenset[str]:
    fitting = [prefix for prefix in MAY_IMPORT if module == prefix or module.startswith(prefix + ".")]
    return MAY_IMPORT[max(fitting, key=len)]


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_imports_point_downward(path):
    module = module_of(path)
    ours = {name for name in imports_of(path) if name.split(".")[0] in OURS}
    upward = sorted(name for name in ours if not covered(name, rule_for(module)))
    assert not upward, f"{module} imports {', '.join(upward)}"


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_torch_stays_out_of_formats_protocol_scheduler_and_client(path):
    module = module_of(path)
    if module.split(".")[0] == "client" or module.startswith(NO_TORCH):
        assert not {name.split(".")[0] for name in imports_of(path)} & TORCH


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_errors_config_and_protocol_need_the_standard_library_only(path):
    if module_of(path).startswith(STANDARD_ONLY):
        foreign = {name.split(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names) - {"streaming"}
        assert not foreign


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_client_imports_completely_where_torch_cannot_be():
    modules = [module_of(path) for path in (ROOT / "client").glob("*.py") if path.name != "__main__.py"]
    run_python(
        "import sys, importlib\n"
        f"for name in {sorted(TORCH)}: sys.modules[name] = None\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "import client\n"
        "for name in client.__all__: getattr(client, name)\n"
    )


def test_importing_the_packages_loads_nothing_else():
    loaded = run_python(
        "import sys\nbefore = set(sys.modules)\nimport streaming, client\n"
        "print(*sorted(set(sys.modules) - before - set(sys.stdlib_module_names)))"
    ).split()
    assert [name for name in loaded if name.split(".")[0] in ("numpy", "torch", "websockets", "sounddevice")] == []


def test_every_public_name_of_the_core_loads():
    run_python("import streaming\nfor name in streaming.__all__: getattr(streaming, name)")


def test_sounddevice_is_loaded_only_when_a_device_is_opened():
    run_python("import sys\nsys.modules['sounddevice'] = None\nimport client.cli, client.devices")
