"""What an installed wheel, and an editable install, teach an unmodified lm-eval; in fresh environments.

    pytest -q tests/e2e/test_install.py

Nothing is downloaded: a fresh environment finds every other package in the one that runs the tests.
"""

from __future__ import annotations

import email
import hashlib
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ske_models", "ske_tasks", "training")
VALUE = "ske_models.lm_eval:SKEExplicitLM"
REGISTERED = "import lm_eval.models; known = lm_eval.api.registry.model_registry; names = dict(known.items())"


def run(
    python: Path, *arguments: str, check: bool = True, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a fresh environment's Python away from the checkout; its stdout and stderr as text."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(python), *arguments],
        cwd=python.parent,
        env=env | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def environment(folder: Path, *, with_pip: bool = False) -> Path:
    """Make an environment that sees the packages of this one behind its own, and return its Python. The .pth
    files of this one are not run, so an editable install of ours is not found through them."""
    venv.create(folder, with_pip=with_pip, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "zz_borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def run_hatchling(hook: str, source: Path, out: Path) -> None:
    """Call a hook of PEP 517 as pip does."""
    code = f"import hatchling.build as backend; backend.{hook}({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)


def digests(wheel: Path) -> dict[str, str]:
    """The digest of each file of a wheel."""
    with zipfile.ZipFile(wheel) as files:
        return {name: hashlib.sha256(files.read(name)).hexdigest() for name in files.namelist()}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the editable wheel, as pip and uv have hatchling build them."""
    folder = tmp_path_factory.mktemp("wheels")
    built = {}
    for kind, hook in {"wheel": "build_wheel", "editable": "build_editable"}.items():
        (folder / kind).mkdir()
        run_hatchling(hook, ROOT, folder / kind)
        (built[kind],) = (folder / kind).glob("*.whl")
    return built


@pytest.fixture(scope="module")
def pythons(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three environments: `bare` without the package, `wheel` and `editable` with it."""
    folder = tmp_path_factory.mktemp("environments")
    pip = [str(environment(folder / "pip", with_pip=True)), "-m", "pip", "--quiet"]
    found = {"bare": environment(folder / "bare")}
    for kind, wheel in wheels.items():
        found[kind] = environment(folder / kind)
        options = ["--no-deps", "--no-index", "--force-reinstall", str(wheel)]
        run(Path(pip[0]), *pip[1:], "--python", str(found[kind]), "install", *options)
    return found


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request: pytest.FixtureRequest, pythons: dict[str, Path]) -> Path:
    """The Python of an environment with the package, installed in either way."""
    python = pythons[request.param]
    where = Path(run(python, "-c", "import ske_models; print(ske_models.__file__)").stdout.strip())
    assert where.is_relative_to(python.parent.parent if request.param == "wheel" else ROOT)
    return python


def test_wheel_holds_the_package_and_nothing_else(wheels: dict[str, Path]) -> None:
    names = zipfile.ZipFile(wheels["wheel"]).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {*PACKAGES, "ske_learn_hook.py", "ske_learn_hook.pth"}
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(tracked) <= set(names)


def test_wheel_promises_only_what_it_holds(wheels: dict[str, Path]) -> None:
    """Every extra is for code of the wheel: `train` for `training`; what only a checkout uses is no extra."""
    with zipfile.ZipFile(wheels["wheel"]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(wheel.read(name))
    assert set(metadata.get_all("Provides-Extra", [])) == {"all", "lm-eval", "opencompass", "train", "vllm"}
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])


def test_sdist_builds_the_same_wheel(wheels: dict[str, Path], tmp_path: Path) -> None:
    run_hatchling("build_sdist", ROOT, tmp_path)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (source,) = (path for path in tmp_path.iterdir() if path.is_dir())
    (tmp_path / "again").mkdir()
    run_hatchling("build_wheel", source, tmp_path / "again")
    (again,) = (tmp_path / "again").glob("*.whl")
    assert digests(again) == digests(wheels["wheel"])
    assert len(digests(again)) > 100


def test_stock_command_lists_our_tasks(pythons: dict[str, Path]) -> None:
    command = Path(sysconfig.get_path("scripts")) / "lm_eval"
    listing = run(pythons["wheel"], str(command), "ls", "tasks").stdout
    listed = {line.split("|")[1].strip() for line in listing.splitlines() if line.startswith("|")}
    ours = {path.stem for path in (ROOT / "ske_tasks" / "tasks").glob("[!_]*.yaml")}
    assert {"ske_world", "hellaswag", *ours} <= listed


def test_model_is_known_by_name_only(installed: Path) -> None:
    code = f"""if True:
        {REGISTERED}
        import sys
        assert names["ske_explicit"] == {VALUE!r}, names["ske_explicit"]
        assert not {{"torch", "transformers", "ske_models.lm_eval"}} & set(sys.modules)
        stock = lm_eval.models.MODEL_MAPPING
        assert names["hf"] == stock["hf"] and set(stock) | {{"ske_explicit"}} == set(names)
    """
    run(installed, "-c", code)


def test_models_are_imported_when_asked_for(pythons: dict[str, Path]) -> None:
    code = "from lm_eval.api.registry import get_model as get; print(get('ske_explicit').__name__, get('hf'))"
    assert run(pythons["wheel"], "-c", code).stdout.startswith(
        "SKEExplicitLM <class 'lm_eval.models.huggingface"
    )


def test_tasks_stand_behind_the_built_in_and_before_the_users(installed: Path, tmp_path: Path) -> None:
    code = f"""if True:
        from pathlib import Path
        from lm_eval.tasks import _index
        seen = []
        _index.TaskIndex._iter_yaml_files = staticmethod(lambda root: seen.append(root) or [])
        builtin, user = Path(_index.__file__).parent, Path({str(tmp_path)!r})
        _index.TaskIndex.build([builtin, user])
        assert [seen[0], seen[2]] == [builtin, user] and seen[1].parts[-2:] == ("ske_tasks", "tasks"), seen
        ours = seen[1]
        for asked, expected in (([user], [user]), ([builtin, user, ours], [builtin, user, ours])):
            seen.clear()
            _index.TaskIndex.build(asked)
            assert seen == expected, seen
    """
    run(installed, "-c", code)


def test_switched_off_lm_eval_is_as_installed_and_install_does_the_same(installed: Path) -> None:
    code = f"""if True:
        import sys
        assert "Finder" not in [finder.__name__ for finder in sys.meta_path if isinstance(finder, type)]
        {REGISTERED}
        assert "ske_explicit" not in names and "hf" in names
        from lm_eval.tasks import _index
        assert _index.TaskIndex.build.__module__ == "lm_eval.tasks._index"
        import ske_learn_hook
        ske_learn_hook.install()
        assert "ske_explicit" in known
        assert _index.TaskIndex.build.__module__ == "ske_models.plugin.registration"
    """
    run(installed, "-c", code, SKE_LEARN_HOOK="0")


def test_running_the_line_again_is_harmless(installed: Path) -> None:
    line = (ROOT / "packaging" / "ske_learn_hook.pth").read_text()
    code = f"""if True:
        import sys
        exec({line!r})
        exec({line!r})
        assert [finder.__name__ for finder in sys.meta_path if isinstance(finder, type)].count("Finder") == 1
        {REGISTERED}
        exec({line!r})
        assert names["ske_explicit"] == {VALUE!r}
    """
    assert run(installed, "-W", "error", "-c", code).stderr == ""


@pytest.mark.parametrize("first", ["hook", "entry point"])
def test_entry_point_and_hook_together(installed: Path, first: str) -> None:
    """lm-eval after 0.4.13 registers an entry point under a name that is still free."""
    code = f"""if True:
        from importlib.metadata import entry_points
        import ske_learn_hook
        {REGISTERED}
        (ours,) = {{(point.name, point.value) for point in entry_points(group="lm_eval.models")}}
        assert ours == ("ske_explicit", {VALUE!r}), ours
        for point in entry_points(group="lm_eval.models"):
            if point.name not in known:
                known.register(point.name, target=point)
        ske_learn_hook.install()
        print(type(dict(known.items())["ske_explicit"]).__name__)
    """
    done = run(installed, "-W", "error", "-c", code, SKE_LEARN_HOOK="1" if first == "hook" else "0")
    assert done.stdout.strip() == ("str" if first == "hook" else "EntryPoint")


def test_what_is_left_of_a_removed_package_breaks_nothing(pythons: dict[str, Path]) -> None:
    no_package = (
        f"import sys; sys.modules['ske_models'] = None; {REGISTERED}; assert 'ske_explicit' not in names"
    )
    assert run(pythons["wheel"], "-c", no_package).stderr == ""
    no_lm_eval = "import sys; sys.modules['lm_eval'] = None; import ske_learn_hook; ske_learn_hook.install()"
    assert run(pythons["wheel"], "-c", no_lm_eval).stderr == ""


def test_wheel_alone_runs_the_method_and_the_rounds(pythons: dict[str, Path], tmp_path: Path) -> None:
    """Away from the checkout: the stock command on the embedded model, and the rounds' plan."""
    command = [str(Path(sysconfig.get_path("scripts")) / "lm_eval"), "--model", "ske_explicit"]
    tasks = ["--tasks", "ske_world", "--limit", "20", "--output_path", str(tmp_path)]
    done = run(pythons["wheel"], *command, *tasks, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert "|ske_world" in done.stdout
    (result,) = tmp_path.rglob("results_*.json")
    assert json.loads(result.read_text())["n-samples"]["ske_world"]["effective"] == 20
    plan = run(pythons["wheel"], "-m", "training.round", "--recipe", "world", "--dry-run")
    assert "M4" in plan.stdout + plan.stderr


def test_start_up_line_imports_nothing_but_itself(pythons: dict[str, Path]) -> None:
    code = "import sys; print(*sys.modules)"
    without, with_package = (set(run(pythons[kind], "-c", code).stdout.split()) for kind in ("bare", "wheel"))
    assert with_package - without == {"ske_learn_hook"}


def test_interpreter_start_costs_under_a_millisecond(pythons: dict[str, Path]) -> None:
    """CPU time of `python -c pass`, 200 times in turns with and without the package.

    The fastest start of each is the one that other processes disturbed least.
    """

    def start(python: Path) -> float:
        _, status, usage = os.wait4(os.posix_spawn(python, [str(python), "-c", "pass"], {}), 0)
        assert status == 0
        return (usage.ru_utime + usage.ru_stime) * 1000

    times = [(start(pythons["bare"]), start(pythons["wheel"])) for _ in range(200)]
    without, with_package = zip(*times, strict=True)
    medians = statistics.median(without), statistics.median(with_package)
    fastest = min(without), min(with_package)
    print(f"interpreter start in ms, without and with the package: medians {medians}, fastest {fastest}")
    assert fastest[1] - fastest[0] < 1.0
