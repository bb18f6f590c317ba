import json
import time

import pytest

from saadi import bench
from saadi.bench import audit, exports
from saadi.config import Home
from saadi.errors import BadInputError
from saadi.exports.verify import verify_export


def test_unknown_benchmark_names_those_that_exist():
    with pytest.raises(BadInputError, match=r"no benchmark 'speed'; there are: generation, .*, quality, clicks, ui"):
        bench.main(["speed"])


def test_median_ignores_one_slow_run():
    times = iter([0.0, 0.0, 0.0, 0.2, 0.0])
    assert bench.median_seconds(lambda: time.sleep(next(times)), repeats=4, warm_up=1) < 0.1


def test_paired_calls_take_turns():
    order: list[str] = []
    bench.paired_medians(lambda: order.append("a"), lambda: order.append("b"), repeats=3, block=2)
    assert order == ["a", "a", "b", "b"] * 3


def test_the_export_of_the_benchmark_is_a_whole_one(tmp_path, capsys):
    exports.fill(Home(tmp_path / "home"), 40)
    found = exports.export_once(tmp_path / "home", tmp_path / "out")
    assert found["seconds"] > 0 and 0.5 < found["mib"] < 20
    assert verify_export(tmp_path / "out") == []
    assert json.loads((tmp_path / "out/manifest.json").read_text())["counts"] == {
        "train": {"real": 3, "synthetic": 36}, "val": {"real": 1}}


def test_the_audit_of_the_benchmark_is_a_whole_one(tmp_path, monkeypatch):
    from saadi.privacy import verifier

    fit = verifier.fit
    monkeypatch.setattr(verifier, "fit", lambda images, groups, **more: fit(images, groups, **{**more, "steps": 40}))
    monkeypatch.setattr(audit, "SIDE", 64)
    exports.fill(Home(tmp_path), 60, num_real=40, num_patients=40, weights=audit._generator)
    found = audit.audit_once(tmp_path)
    assert found["audit_s"] > found["plain_s"] > 0 and found["peak_mib"] > 10
