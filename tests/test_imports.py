"""The import arrows of the design, from the syntax tree of every file (imports inside functions too), and in practice.

tests -> benchmarks | training -> demos -> server | client -> engine -> stream, codec -> encoder, decoder -> layers
-> kernels -> protocol | audio | tokens -> config -> errors.     No file imports itself through others.
"""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {
    "streaming": "neucodec_streaming",
    "server": "neucodec_streaming.server",
    "client": "neucodec_streaming.client",
}
PACKAGES = ("streaming", "server", "client", "demos", "benchmarks", "training", "tests")
CORE = "neucodec_streaming"

NOTHING: frozenset[str] = frozenset()
ERRORS = frozenset({f"{CORE}.errors", f"{CORE}.lazy"})
CONFIG = ERRORS | {f"{CORE}.config", f"{CORE}.tags"}
FORMATS = CONFIG | {
    f"{CORE}.{name}" for name in ("audio", "formats", "resampler", "tokens", "token_files", "token_table", "torch_file")
}
WIRE = CONFIG | {f"{CORE}.formats", f"{CORE}.protocol"}
LAYERS = CONFIG | {f"{CORE}.{name}" for name in ("kernels", "layers", "snapshot", "priors")}
STREAMS = {
    f"{CORE}.{name}"
    for name in ("encoder", "decoder", "windows", "stepper", "stream", "loading", "int8_model", "checkpoints", "codec")
}
NUMERIC = FORMATS | LAYERS | STREAMS
SERVER = NUMERIC | WIRE | {CORE, f"{CORE}.proxies", f"{CORE}.calibration", f"{CORE}.engine", f"{CORE}.server"}
CLIENT = FORMATS | WIRE | {f"{CORE}.client", f"{CORE}.proxies"}
DEMOS = SERVER | CLIENT | {"demos"}
BENCHMARKS = DEMOS | {"benchmarks"}
TRAINING = SERVER | {"training", "benchmarks"}
MAY_IMPORT = {
    f"{CORE}.errors": NOTHING,
    f"{CORE}.lazy": NOTHING,
    f"{CORE}.config": ERRORS,
    f"{CORE}.tags": ERRORS,
    f"{CORE}.proxies": ERRORS,
    f"{CORE}.formats": CONFIG,
    f"{CORE}.audio": FORMATS,
    f"{CORE}.resampler": FORMATS,
    f"{CORE}.torch_file": CONFIG,
    f"{CORE}.tokens": FORMATS,
    f"{CORE}.token_files": FORMATS,
    f"{CORE}.token_table": FORMATS,
    f"{CORE}.protocol": WIRE,
    f"{CORE}.kernels": CONFIG | {f"{CORE}.kernels"},
    f"{CORE}.layers": LAYERS,
    f"{CORE}.engine": NUMERIC | {f"{CORE}.engine"},
    CORE: NUMERIC | {f"{CORE}.protocol.concealment"},
    f"{CORE}.server": SERVER,
    f"{CORE}.client": CLIENT,
    "demos": DEMOS,
    "benchmarks": BENCHMARKS,
    "training": TRAINING,
    "tests": BENCHMARKS | TRAINING | {"tests", f"{CORE}.priors"},
}
"""Prefix of a module (the longest match counts) -> prefixes of the project's modules that it may import."""
STANDARD_ONLY = tuple(
    f"{CORE}.{name}" for name in ("errors", "lazy", "config", "tags", "formats", "protocol", "proxies")
)
TORCH = {"torch", "transformers", "safetensors", "torchaudio"}
NO_TORCH = (*STANDARD_ONLY, *sorted(FORMATS), f"{CORE}.engine.scheduler", f"{CORE}.client")


def files() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def module_of(path: Path) -> str:
    head, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join((FOLDERS.get(head, head), *rest)).removesuffix(".__init__")


@cache
def modules() -> frozenset[str]:
    return frozenset(map(module_of, files()))


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Includes imported names that are modules."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in modules() else node.module)
    return frozenset(found)


def ours(path: Path) -> set[str]:
    return {name for name in imports_of(path) if name.split(".")[0] in (CORE, *PACKAGES)}


def covered(module: str, prefixes: frozenset[str]) -> bool:
    return any(module == prefix or (prefix != CORE and module.startswith(prefix + ".")) for prefix in prefixes)


def rule_for(module: str) -> frozenset[str]:
    fitting = [prefix for prefix in MAY_IMPORT if module == prefix or module.startswith(prefix + ".")]
    return MAY_IMPORT[max(fitting, key=len)]


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_imports_point_downward(path):
    module = module_of(path)
    upward = sorted(name for name in ours(path) if not covered(name, rule_for(module)))
    assert not upward, f"{module} imports {', '.join(upward)}"


def test_every_imported_project_module_exists():
    missing = {f"{module_of(path)}: {name}" for path in files() for name in ours(path) if name not in modules()}
    assert not missing


def test_there_are_no_import_cycles():
    arrows = {module_of(path): sorted(ours(path) - {module_of(path)}) for path in files()}
    finished: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in finished:
            for imported in arrows[module]:
                visit(imported, (*way, module))
            finished.add(module)

    for module in arrows:
        visit(module, ())


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_formats_protocol_scheduler_and_client_do_not_import_torch(path):
    if covered(module_of(path), frozenset(NO_TORCH)):
        assert not {name.split(".")[0] for name in imports_of(path)} & TORCH


@pytest.mark.parametrize("path", files(), ids=module_of)
def test_errors_config_and_protocol_need_the_standard_library_only(path):
    if covered(module_of(path), frozenset(STANDARD_ONLY)):
        assert not {name.split(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names) - {CORE}


BORDERS = {"aiomqtt": {f"{CORE}.server.mqtt.broker", f"{CORE}.client.mqtt.link"}}
BORDERS["paho"] = BORDERS["aiomqtt"]


@pytest.mark.parametrize("library", BORDERS)
def test_each_side_imports_its_mqtt_library_in_one_file(library):
    importing = {
        module_of(path)
        for path in files()
        if library in {name.split(".")[0] for name in imports_of(path)} and not module_of(path).startswith("tests.")
    }
    assert importing == BORDERS[library]


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_client_imports_completely_without_torch():
    optional = ("livekit", "pipecat", "mqtt")  # with libraries of an extra installed
    names = [
        module_of(path)
        for path in (ROOT / "client").rglob("*.py")
        if path.name != "__main__.py" and not any(word in str(path.relative_to(ROOT)) for word in optional)
    ]
    run_python(
        "import sys, importlib\n"
        f"for name in {sorted(TORCH)}: sys.modules[name] = None\n"
        f"for name in {names}: importlib.import_module(name)\n"
        f"import {CORE}.client as client\n"
        "for name in client.__all__: getattr(client, name)\n"
    )


@pytest.mark.parametrize("package", [CORE, f"{CORE}.client", f"{CORE}.server"])
def test_every_public_name_loads(package):
    run_python(f"import {package} as package\nfor name in package.__all__: getattr(package, name)")


def test_every_error_class_of_the_tree_is_exported():
    import neucodec_streaming
    from neucodec_streaming import errors

    tree = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert tree <= set(neucodec_streaming.__all__)


def test_importing_the_packages_loads_nothing_else():
    loaded = run_python(
        f"import sys\nbefore = set(sys.modules)\nimport {CORE}, {CORE}.client, {CORE}.server\n"
        "print(*sorted(set(sys.modules) - before - set(sys.stdlib_module_names)))"
    ).split()
    assert [name for name in loaded if name.split(".")[0] in ("numpy", "torch", "websockets", "sounddevice")] == []


@pytest.mark.parametrize(
    "asked", ["from neucodec_streaming import load_codec", "from neucodec_streaming.server import App"]
)
def test_a_client_only_import_names_the_missing_extra(asked):
    hidden = sorted({*TORCH, "prometheus_client"})
    hide = f"import sys\nfor name in {hidden}: sys.modules[name] = None\n"
    said = run_python(f"{hide}try:\n    {asked}\nexcept ImportError as error: print(error)")
    assert "pip install '.[server]'" in said and said.count("\n") == 1
    command = f"{hide}from {CORE}.server.__main__ import main\nsys.exit(main())"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "pip install '.[server]'" in done.stderr


def test_sounddevice_is_loaded_only_when_a_device_is_opened():
    run_python(f"import sys\nsys.modules['sounddevice'] = None\nimport {CORE}.client.cli, {CORE}.client.devices")
