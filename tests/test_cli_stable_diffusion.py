"""The command line with the engine `stable-diffusion`: fit, refusals, doctor."""

from __future__ import annotations

from pathlib import Path

from saadi.config import Home
from saadi.store import Store
from tests import tiny_diffusion
from tests.test_cli import Answer, Run, answer, run  # noqa: F401


def test_it_is_fitted_and_the_doctor_looks_at_its_weights(
    store: Store, home: Home, tmp_path: Path, answer: Answer, run: Run  # noqa: F811
) -> None:
    tiny_diffusion.project(store)
    base = tiny_diffusion.folder(tmp_path / "sd")
    at = ("--home", home.path)
    wanted = ("fit", "sd", "--engine", "stable-diffusion", "--steps", 1, "--batch-size", 2)
    done = answer(*wanted, "--base", base, "--rank", 2, "--prompt", "surgery: {classes}", "--saves-memory", *at)
    model = store.model(done["result"]["model_id"])
    assert (model.architecture["prompt"], model.architecture["saves_memory"]) == ("surgery: {classes}", True)
    checks = {check["name"]: check for check in answer("doctor", *at)["checks"]}
    assert checks["base weights"] == {"name": "base weights", "ok": True, "message": "there, and the ones that were fitted"}

    status, _, err = run(*wanted, "--base", base, "--mode", "controlnet", *at)
    assert status == 1 and "is an inpainting model (9 input channels); mode controlnet needs 4" in err
    base.rename(tmp_path / "elsewhere")
    status, out, _ = run("doctor", *at)
    assert status == 1 and "FAIL  base weights: the folder" in out and "hf download" in out
    status, _, err = run("generate", "sd", "--count", 1, *at)
    assert status == 1 and "does not exist; get the weights with: hf download" in err.splitlines()[-1]
