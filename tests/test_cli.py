"""The command line: one JSON object, one sentence, three exit codes; jobs and Ctrl+C, kill -9 and SIGTERM."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer

from saadi import cli, jobs
from saadi.config import Home
from saadi.records import Job
from saadi.store import Store
from tests.exports.test_archive import make_export

ROOT = Path(__file__).resolve().parent.parent
Run = Callable[..., tuple[int, str, str]]
Answer = Callable[..., dict[str, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; returns exit status, stdout and stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["saadi", *map(str, arguments)])
        try:
            cli.main()
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return command


@pytest.fixture
def answer(run: Run) -> Answer:
    """Run a command that succeeds and return its one JSON object."""

    def command(*arguments: object) -> dict[str, Any]:
        status, out, err = run(*arguments, "--json")
        assert status == 0, err
        assert len(out.splitlines()) == 1
        return json.loads(out)

    return command


def write_scenes(folder: Path, *, num: int, side: int = 32) -> tuple[Path, Path]:
    """Green blobs on red: images and masks of value 255, three frames a patient."""
    images, masks = folder / "images", folder / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    for number in range(num):
        draw = np.random.default_rng(number)
        mask = np.zeros((side, side), np.uint8)
        cv2.circle(mask, tuple(int(value) for value in draw.integers(10, 22, 2)), int(draw.integers(4, 9)), 255, -1)
        image = np.where(mask[..., None] > 0, (80, 150, 70), (60, 70, 170)) + draw.normal(0, 6, (side, side, 3))
        name = f"p{number // 3:02d}_{number:03d}.png"
        cv2.imwrite(str(images / name), np.clip(image, 0, 255).astype(np.uint8))
        cv2.imwrite(str(masks / name), mask)
    return images, masks


# Refusals and small answers.


def test_a_project_is_created_and_listed(answer: Answer, home: Home) -> None:
    made = answer("project", "create", "polyps", "--classes", "background,polyp", "--resolution", 64, "--home", home.path)
    assert answer("project", "list", "--home", home.path)["projects"] == [made]
    with Store.open(home) as store:
        assert store.project("polyps").classes[0].color == "#000000"


@pytest.mark.parametrize(("arguments", "sentence"), [
    (("project", "create", "p", "--classes", "a"), "2 to 100 classes"),
    (("project", "create", "p", "--classes", "a,a"), "different names"),
    (("project", "create", "p", "--classes", "a,b", "--resolution", "100"), "multiple of 32, got 100; take 96"),
    (("project", "create", "p", "--classes", "a,b", "--colors", "#000000,red"), "2 colours like #e05263"),
    (("fit", "nothing"), "no project 'nothing'; there are: none yet"),
    (("cancel", "7"), "no job 7"),
    (("import", "nothing", "--images", "."), "no project 'nothing'"),
])
def test_a_refusal_is_one_sentence_and_status_1(run: Run, home: Home, arguments: tuple[str, ...], sentence: str) -> None:
    status, out, err = run(*arguments, "--home", home.path, *(["--json"] if arguments[0] != "import" else []))
    assert (status, out) == (1, "")
    assert sentence in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [
    ("fit",), ("nonsense",), ("jobs", "--nonsense"), ("cancel", "seven"), ("curate", "p", "--accept-above", "2"),
    ("fit", "p", "--steps", "1", "--minutes", "1"), ("adapters", "p", "--accept", "1", "--reject", "2"),
    ("project", "create", "p", "--classes", "a,b", "--task", "dancing")])
def test_wrong_usage_is_status_2(run: Run, home: Home, arguments: tuple[str, ...]) -> None:
    status, out, err = run(*arguments, *(["--home", home.path] if arguments[0] != "nonsense" else []))
    assert (status, out) == (2, "")
    assert err
    assert not home.database.exists()


def test_values_out_of_bounds_are_refused_by_name(run: Run, answer: Answer, home: Home) -> None:
    answer("project", "create", "p", "--classes", "a,b", "--home", home.path)
    for arguments, name in (("fit p --steps 0", "steps:"), ("generate p --seed -1", "seed:"),
                            ("generate p --adapter best", "adapter"), ("generate p --guidance 0.05", "guidance")):
        status, out, err = run(*arguments.split(), "--home", home.path)
        assert (status, out) == (1, "")
        assert name in err
    status, _, err = run("fit", "p", "--home", home.path)
    assert (status, "0 training images with a label map, 8 needed" in err) == (1, True)
    assert answer("jobs", "--home", home.path) == {"jobs": []}


@pytest.mark.parametrize("arguments", [("jobs",), ("project", "list"), ("--help",)])
def test_cheap_commands_load_no_torch(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code = ("import sys; from saadi.cli import main\n"
            "try: main()\n"
            "except SystemExit: pass\n"
            "sys.exit(bool({'torch', 'gradio', 'diffusers', 'scipy'} & set(sys.modules)))")
    extra = () if arguments[0] == "--help" else ("--home", str(tmp_path))
    assert subprocess.run([sys.executable, "-c", code, *arguments, *extra], cwd=ROOT, capture_output=True).returncode == 0


def test_import_asks_what_the_values_mean(run: Run, answer: Answer, home: Home, tmp_path: Path) -> None:
    images, masks = write_scenes(tmp_path / "data", num=6)
    answer("project", "create", "p", "--classes", "background,polyp", "--home", home.path)
    status, out, err = run("import", "p", "--images", images, "--masks", masks, "--home", home.path, "--json")
    assert status == 1
    found = json.loads(out)
    assert sorted(found["values"]) == ["0", "255"]
    assert sum(item["pixels"] for item in found["values"].values()) == 6 * 32 * 32
    assert f"--values {found['suggestion']}" in err
    outcome = answer("import", "p", "--images", images, "--masks", masks, "--values", found["suggestion"], "--home", home.path)
    assert outcome["import"]["num_added"] == 6
    again = answer("import", "p", "--images", images, "--masks", masks, "--values", found["suggestion"], "--home", home.path)
    assert (again["import"]["num_added"], again["import"]["num_duplicates"]) == (0, 6)


def test_doctor_is_content_with_a_fresh_folder_and_finds_damage(run: Run, answer: Answer, home: Home) -> None:
    checks = answer("doctor", "--home", home.path)
    assert checks["ok"]
    names = {"python", "sqlite", "torch", "base weights", "smart click", "disk", "worker", "database", "audit", "blobs"}
    assert names | {"weights", "jobs"} == {item["name"] for item in checks["checks"]}
    answer("project", "create", "p", "--classes", "a,b", "--home", home.path)
    with Store.open(home) as store:
        blob = store.blobs.put_label_map(np.zeros((8, 8), np.uint8))
        store.add_label_map(1, blob=blob, name="n", author="a", request_id="r", origin="drawn")
        store.blobs.path(blob).unlink()
        store.db.execute("DROP TRIGGER audit_no_update")
        store.db.execute("UPDATE audit SET actor = 'eve' WHERE seq = 1")
    status, out, err = run("doctor", "--home", home.path)
    assert status == 1
    assert "FAIL  blobs: 1 of 1 files are missing" in out
    assert "audit: row 1 was changed" in err


def test_a_backup_is_a_new_file(run: Run, answer: Answer, home: Home, tmp_path: Path) -> None:
    assert answer("backup", tmp_path / "copy.db", "--home", home.path)["bytes"] > 0
    status, _, err = run("backup", tmp_path / "copy.db", "--home", home.path)
    assert (status, "exists already" in err) == (1, True)


# The whole loop, with a real worker process, on images of 32 pixels.


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A data folder with a running worker (one import of torch for all tests below) and an imported project."""
    for module in ("saadi.engines.fitting", "saadi.downstream.training", "saadi.generation"):
        pytest.importorskip(module)
    folder = tmp_path_factory.mktemp("studio")
    home = Home(folder / "home")
    images, masks = write_scenes(folder / "data", num=48)
    threads = os.environ.get("SAADI_THREADS")
    os.environ["SAADI_THREADS"] = "1"
    worker = jobs.WorkerProcess(home)
    worker.ensure()
    base = [sys.executable, "-m", "saadi"]
    for arguments in (["project", "create", "blobs", "--classes", "background,blob", "--resolution", "32"],
                      ["import", "blobs", "--images", str(images), "--masks", str(masks), "--values", "0=background,255=blob",
                       "--group-pattern", r"^(p\d+)_"]):
        subprocess.run([*base, *arguments, "--home", str(home.path)], cwd=ROOT, check=True, capture_output=True)
    yield home
    worker.stop()
    if threads is None:
        del os.environ["SAADI_THREADS"]
    else:
        os.environ["SAADI_THREADS"] = threads


def test_the_whole_loop(run: Run, answer: Answer, studio: Home, tmp_path: Path) -> None:
    at = ("--home", studio.path)
    fitted = answer("fit", "blobs", "--steps", 2, "--batch-size", 2, "--from-scratch", *at)
    assert (fitted["state"], fitted["result"]["steps"]) == ("done", 2)
    assert answer("train-scorer", "blobs", "--steps", 2, "--batch-size", 2, *at)["state"] == "done"
    made = answer("generate", "blobs", "--count", 18, "--candidates", 2, "--seed", 3, "--steps", 2, *at)
    assert len(made["result"]["sample_ids"]) == 36
    assert answer("score", "blobs", *at)["state"] == "done"
    listed = answer("pairs", "blobs", "--show", *at)
    frozen = answer("pairs", "blobs", *at)
    assert len(listed["pairs"]) == frozen["num_pairs"] >= 16
    assert {row["decider"] for row in listed["pairs"]} == set(frozen["summary"]["by_source"])
    first = answer("curate", "blobs", "--accept-above", 0, *at)  # two steps make noise, which the quality gate may refuse
    assert first["accepted"] + first["refused"] == 36 and (first["below"], first["unscored"]) == (0, 0)
    rest = {"accepted": first["refused"], "below": 0, "unscored": 0, "refused": 0}
    assert answer("curate", "blobs", "--accept-above", 0, "--include-refused", *at) == rest
    assert answer("adapters", "blobs", *at) == {"in_use": None, "adapters": []}
    status, _, err = run("adapters", "blobs", "--rollback", *at)
    assert (status, "uses the base model already" in err) == (1, True)


@pytest.mark.parametrize("format", ["imagefolder", "nnunet"])
def test_an_export_is_verified(run: Run, answer: Answer, studio: Home, tmp_path: Path, format: str) -> None:
    pytest.importorskip("saadi.exports.recipe")
    pytest.importorskip("saadi.exports.verify")
    at = ("--home", studio.path)
    status, _, err = run("export", "blobs", "--format", format, "--out", tmp_path / "set", *at)
    assert status == 1 and "unlike real images" in err and "include what the quality gate refuses" in err  # noise of two steps
    made = answer("export", "blobs", "--format", format, "--out", tmp_path / "set", "--include-refused", *at)
    assert made["state"] == "done"
    assert answer("verify", tmp_path / "set", *at) == answer("verify", tmp_path / "set") == {"verified": True, "problems": []}
    status, _, err = run("export", "blobs", "--format", format, "--out", tmp_path / "set", *at)
    assert (status, "not empty" in err) == (1, True)
    picture = next(path for path in (tmp_path / "set").rglob("*.png"))
    picture.write_bytes(picture.read_bytes()[:-20])
    status, _, err = run("verify", tmp_path / "set", *at)
    assert (status, "was changed" in err or "damaged" in err) == (1, True), err


def test_an_export_becomes_one_file(run: Run, answer: Answer, tmp_path: Path) -> None:
    folder = make_export(tmp_path / "set", {"images/1.png": b"pixels"})
    made = answer("zip", folder, tmp_path / "set.zip")
    assert made["num_files"] == 3 and made["num_bytes"] == (tmp_path / "set.zip").stat().st_size
    assert run("zip", folder, tmp_path / "set.zip") == (1, "", "the file 'set.zip' is there already; choose a new one\n")
    assert run("zip", tmp_path, tmp_path / "other.zip")[0] == 1 and not (tmp_path / "other.zip").exists()


def test_align_ends_in_a_candidate_or_says_why_not(run: Run, answer: Answer, studio: Home) -> None:
    pytest.importorskip("saadi.alignment.job")
    at = ("--home", studio.path)
    status, out, err = run("align", "blobs", "--steps", 2, "--batch-size", 2, *at, "--json")
    if status == 0:
        adapter_id = answer("adapters", "blobs", *at)["adapters"][0]["id"]
        assert answer("adapters", "blobs", "--accept", adapter_id, *at)["in_use"] == adapter_id
        assert answer("adapters", "blobs", "--rollback", *at)["in_use"] is None
    else:  # two steps from random weights: the gate may well find every checkpoint worse than the base
        assert (status, out) == (1, "")
        assert "gate" in err or "checkpoint" in err, err


def start(studio: Home, *arguments: str) -> subprocess.Popen[str]:
    # A test run in the background of a shell inherits an ignored SIGINT, and would hand it on.
    return subprocess.Popen([sys.executable, "-m", "saadi", *arguments, "--home", str(studio.path)], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def running_job(studio: Home) -> Job:
    """The newest job, once it has made a step."""
    deadline = time.monotonic() + 60
    with Store.open(studio) as store:
        while time.monotonic() < deadline:
            if (found := store.jobs(limit=1)) and found[0].state == "running" and found[0].step > 0:
                return found[0]
            time.sleep(0.02)
    raise AssertionError("no job began")


def test_ctrl_c_cancels_the_job(studio: Home) -> None:
    command = start(studio, "train-scorer", "blobs", "--steps", "100000", "--batch-size", "2")
    job = running_job(studio)
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=60)
    assert command.returncode == 1
    assert f"stopping job {job.id}" in err and "was cancelled; nothing was published" in err
    with Store.open(studio) as store:
        assert store.job(job.id).state == "cancelled"


def test_a_killed_worker_is_replaced_and_the_job_ends_well(studio: Home) -> None:
    command = start(studio, "train-scorer", "blobs", "--steps", "16", "--batch-size", "2", "--json")
    job = running_job(studio)
    os.kill(int((job.worker or "").split("-")[0]), signal.SIGKILL)
    out, err = command.communicate(timeout=120)
    assert command.returncode == 0, err
    assert json.loads(out)["state"] == "done"
    with Store.open(studio) as store:
        assert store.job(job.id).attempt == 2


def test_a_terminated_worker_gives_its_job_back(studio: Home) -> None:
    worker = jobs.WorkerProcess(studio)
    worker.ensure()
    command = start(studio, "train-scorer", "blobs", "--steps", "100000", "--batch-size", "2", "--detach", "--json")
    out, _ = command.communicate(timeout=60)
    assert json.loads(out)["state"] in ("queued", "running")
    job = running_job(studio)
    os.kill(int((job.worker or "").split("-")[0]), signal.SIGTERM)
    while jobs.worker_is_alive(studio):
        time.sleep(0.05)
    with Store.open(studio) as store:
        given_back = store.job(job.id)
        assert (given_back.state, given_back.attempt) == ("queued", 0)
        store.cancel_job(job.id, actor="test")


def readme_commands() -> list[str]:
    readme = ROOT / "README.md"
    lines = readme.read_text().splitlines() if readme.exists() else []
    return [line.split("#")[0].strip().removeprefix("python -m saadi ") for line in lines if line.startswith("python -m saadi ")]


@pytest.mark.parametrize("line", readme_commands())
def test_the_readme_uses_commands_and_options_that_exist(line: str) -> None:
    command: Any = typer.main.get_command(cli.app)
    arguments = shlex.split(line)
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    assert command.make_context("saadi", arguments).params  # parses and checks, runs nothing


@pytest.mark.parametrize(("option", "sentence"), [
    (("--loss", "ppo"), "losses are dpo, kto, mapo, sft; got 'ppo'"),
    (("--recipes", "mixed,last"), "recipes are mixed, first and sure, with commas between them; got 'last'"),
    (("--masks", "drawn"), "masks are moved or warped; got 'drawn'"),
    (("--shares", "0.5,-1"), "numbers above 0 with commas between them are expected, for example 0.5,1,2; got '0.5,-1'"),
    (("--side", "32"), "rendered scenes are 64 to 512 px; got --side 32"),
    (("--side", "100"), "the side of images is a multiple of 32; got 100"),
    (("--leave-one-out",), "rendered scenes have test patients of their own; leave the options on test patients out"),
])  # fmt: skip
def test_evidence_refuses_in_one_sentence_before_anything_is_trained(
    run: Run, tmp_path: Path, option: tuple[str, ...], sentence: str
):
    folder = tmp_path / "stages"
    assert run("evidence", "phantom", "--home", tmp_path, "--folder", folder, *option) == (1, "", sentence + "\n")
    assert not folder.exists()


def test_evidence_of_a_name_is_its_gains(run: Run, tmp_path: Path):
    for words in (["nobody"], ["gains", "nobody"]):
        assert run("evidence", *words, "--home", tmp_path) == (1, "", "no project 'nobody'; there are: none yet\n")
    assert run("evidence", "nobody", "--seeds", "0", "--home", tmp_path)[0] == 2
    status, _, err = run("evidence", "ablation", "phantom")  # a slip, no project
    assert status == 2 and "ablations" in err


def test_what_is_scarce_on_purpose_is_a_class_of_rendered_scenes(run: Run, tmp_path: Path):
    for words, told in ((["phantom", "--scarce", "spleen"], "there is no class 'spleen' to be scarce; there are liver, "),
                        (["phantom", "--scarce", "tissue"], "there is no class 'tissue' to be scarce"),
                        (["phantom-phases", "--scarce", "clipping"], "--scarce is about classes of rendered scenes")):
        status, _, err = run("evidence", "gains", *words, "--side", "64", "--home", tmp_path)
        assert status == 1 and told in err and err.count("\n") == 1


def test_a_recorded_command_has_no_folders_and_can_be_copied():
    from saadi.cli.evidence import _told

    words = ["evidence", "gains", "x", "--folder", "/data/stages", "--side", "64", "--home", "data", "--out=a/b.json", "--json",
             "--test-group", "op/1"]  # fmt: skip
    assert _told(words) == ["evidence", "gains", "x", "--side", "64", "--test-group", "op/1"]


def test_a_data_set_that_names_its_classes_needs_no_values(run: Run, answer: Answer, home: Home, tmp_path: Path) -> None:
    """COCO with the project's classes: nothing is asked; with others the values are listed with what they are called."""
    (tmp_path / "set").mkdir()
    cv2.imwrite(str(tmp_path / "set" / "a.png"), np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    (tmp_path / "set" / "train.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 24}], "categories": [{"id": 5, "name": "Polyp"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5,
                         "segmentation": [[2, 2, 10, 2, 10, 10, 2, 10]]}]}))  # fmt: skip
    for name, classes in (("polyps", "background,polyp"), ("tools", "background,tool")):
        answer("project", "create", name, "--classes", classes, "--resolution", "64", "--home", home.path)
    told = answer("import", "polyps", "--images", tmp_path / "set", "--home", home.path)
    assert told["import"]["num_added"] == 1 and told["import"]["splits"] == {"train": 1}
    status, out, err = run("import", "tools", "--images", tmp_path / "set", "--home", home.path)
    assert status == 1 and "called 'Polyp'" in out and "5=ignore" in err
    status, _, err = run("import", "tools", "--images", tmp_path / "set", "--format", "mat", "--home", home.path)
    assert status == 1 and "source" in err, err
