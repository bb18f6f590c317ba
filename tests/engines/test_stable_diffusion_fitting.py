"""Fitting Stable Diffusion, and the whole loop through the real worker, on a tiny random model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from saadi import inpainting, orders, pairing
from saadi.alignment.gate import Gate, Reading
from saadi.alignment.material import build_gate
from saadi.alignment.recipe import align
from saadi.alignment.settings import AlignmentConfig, TrainingPair, TrainingSingle
from saadi.alignment.trainer import PairTrainer
from saadi.config import Home
from saadi.engines import few_shot, lora, weights
from saadi.engines.fitting import load_engine
from saadi.engines.regions import named_region
from saadi.engines.stable_diffusion import CONTROLNET, LORA, UNET, StableDiffusionEngine
from saadi.engines.stable_diffusion_fitting import SAMPLER, FitConfig, Trainer, TrainingSet, draw_batch, fit
from saadi.engines.stable_diffusion_parts import new_controlnet, read_controlnet
from saadi.errors import BadInputError, CancelledError, WeightsError
from saadi.evidence.fresh import measure_adapter
from saadi.jobs import run_worker, silent
from saadi.masks import fit_to
from saadi.orders import AlignOrder, FitOrder, GenerateOrder, TrainScorerOrder, order, place
from saadi.records import Job, Project
from saadi.singles import settle_singles
from saadi.store import Store
from saadi.worker import HANDLERS
from tests import builders, tiny, tiny_diffusion
from ui.lineage import lineage

SIDE = tiny_diffusion.SIDE
MODES = ("inpainting", "controlnet")
CONFIG = FitConfig(num_steps=4, batch_size=2, lora_rank=2, sample_every=0)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder per mode; nobody writes to it."""
    return {mode: tiny_diffusion.folder(tmp_path_factory.mktemp(mode) / "base", mode=mode) for mode in MODES}


def trainer_on(base: Path, mode: str, config: FitConfig = CONFIG) -> tuple[Trainer, TrainingSet]:
    torch.manual_seed(0)
    architecture = tiny_diffusion.architecture(base, mode=mode)
    engine = StableDiffusionEngine(architecture, device=tiny.CPU, fits="unet" if config.lora_rank is None else "adapter")
    return Trainer(engine, config), TrainingSet(*tiny.scenes(8, side=SIDE), engine=engine)


@pytest.mark.parametrize(("mode", "full", "kinds"), [
    ("inpainting", False, {LORA}), ("inpainting", True, {UNET}), ("controlnet", False, {LORA, CONTROLNET}),
    ("controlnet", True, {UNET, CONTROLNET}),
])  # fmt: skip
def test_only_what_was_trained_is_kept_and_makes_the_same_images_again(bases, mode, full, kinds):
    trainer, data = trainer_on(bases[mode], mode, replace(CONFIG, lora_rank=None if full else 2, learning_rate=1e-2))
    before = {name: parameter.detach().clone() for name, parameter in trainer.parameters.items()}
    assert fit(trainer, data, silent)["steps"] == 4
    moved = [kind for kind in kinds if any(
        not torch.equal(parameter, before[name]) for name, parameter in trainer.parameters.items() if name.startswith(kind))]
    state = trainer.state()
    assert {next(kind for kind in (LORA, UNET, CONTROLNET) if name.startswith(kind)) for name in state} == kinds == set(moved)
    again = StableDiffusionEngine(trainer.engine.architecture, state, device=tiny.CPU)
    label_map, image = data.label_maps[0], data.images[0]
    regions = [named_region(label_map, image, side=SIDE)] if mode == "inpainting" else None
    [one], [other] = (engine.generate([label_map], [1], regions=regions) for engine in (trainer.engine, again))
    difference = np.abs(one.astype(int) - other.astype(int))
    assert difference.max() <= (40 if full or mode == "controlnet" else 8) and difference.mean() < 3  # half precision, bfloat16
    [fresh] = tiny_diffusion.engine(bases[mode], mode=mode).generate([label_map], [1], regions=regions)
    assert np.abs(fresh.astype(int) - other.astype(int)).mean() > difference.mean()


@pytest.mark.parametrize("mode", MODES)
def test_fitting_lowers_the_error_on_fixed_noise(bases, mode):
    trainer, data = trainer_on(bases[mode], mode, replace(CONFIG, num_steps=40, batch_size=4, lora_rank=8, learning_rate=2e-2))
    engine = trainer.engine
    clean, condition = engine.encode_images(data.images), engine.encode_label_maps(data.label_maps, data.images)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))

    def error() -> float:
        with torch.no_grad():
            return float(engine.errors(clean, condition, torch.full((8,), 0.7), noise).mean())

    before = error()
    fit(trainer, data, silent)
    assert error() < 0.8 * before


@pytest.mark.parametrize("mode", MODES)
def test_interrupted_fit_equals_uninterrupted(bases, mode, tmp_path):
    whole, data = trainer_on(bases[mode], mode)
    fit(whole, data, silent)
    broken, data = trainer_on(bases[mode], mode)

    def stop(step, total, message, *, metrics=None, images=None):
        if step == 2:
            broken.save(tmp_path)
            raise CancelledError("cancelled")

    with pytest.raises(CancelledError):
        fit(broken, data, stop)
    resumed, data = trainer_on(bases[mode], mode)
    fit(resumed, data, silent, folder=tmp_path)
    assert resumed.step == 4
    for name, tensor in whole.state().items():
        torch.testing.assert_close(resumed.state()[name], tensor, msg=name)
    other = trainer_on(bases[mode], mode, replace(CONFIG, base_sha256="another"))[0]
    assert not other.restore(tmp_path)


def test_batches_mirror_image_and_label_map_together(bases):
    trainer, data = trainer_on(bases["controlnet"], "controlnet")
    config = replace(CONFIG, batch_size=32)
    batch = draw_batch(data, trainer.engine, config, step=0, odds=torch.ones(8), by_class=torch.ones(256))
    known = {trainer.engine.encode_images([image])[0].numpy().tobytes(): index for index, image in enumerate(data.images)}
    turned = {trainer.engine.encode_images([np.ascontiguousarray(image[:, ::-1])])[0].numpy().tobytes(): index
              for index, image in enumerate(data.images)}  # fmt: skip
    maps = trainer.engine.encode_label_maps(data.label_maps).control
    num_turned = 0
    for latent, control in zip(batch.clean, batch.condition.control, strict=True):
        if (key := latent.numpy().tobytes()) in known:
            torch.testing.assert_close(control, maps[known[key]])
        else:
            num_turned += 1
            torch.testing.assert_close(control, maps[turned[key]].flip(-1))
    assert 4 < num_turned < 28


def test_prompts_are_left_out_as_often_as_asked(bases):
    trainer, data = trainer_on(bases["controlnet"], "controlnet")
    config = replace(CONFIG, batch_size=200, text_dropout=0.25)
    batch = draw_batch(data, trainer.engine, config, step=0, odds=torch.ones(8), by_class=torch.ones(256))
    empty = trainer.engine.parts.text([""])[0]
    assert 0.15 < float((batch.condition.text == empty).flatten(1).all(1).float().mean()) < 0.35


def test_sometimes_one_class_alone_is_painted_and_named(bases):
    trainer, data = trainer_on(bases["inpainting"], "inpainting")
    both = [index for index, label_map in enumerate(data.label_maps) if {1, 2} <= set(np.unique(label_map).tolist())]
    odds = torch.zeros(8)
    odds[both] = 1.0
    config = replace(CONFIG, batch_size=64, text_dropout=0.0)
    batch = draw_batch(data, trainer.engine, config, step=0, odds=odds, by_class=torch.ones(256))
    prompts = {prompt: trainer.engine.parts.text([f"a photo of {prompt}"])[0] for prompt in ("organ, bar", "organ", "bar")}
    found = [name for text in batch.condition.text for name, known in prompts.items() if torch.equal(text, known)]
    assert len(found) == 64 and set(found) == set(prompts) and 16 < found.count("organ, bar") < 48


@pytest.fixture
def filled(store: Store) -> Project:
    """A project of 24 invented scenes without a generator."""
    return tiny_diffusion.project(store)


def run(store: Store, home: Home, kind: type[orders.Order], **values: object) -> Job:
    job, _ = place(store, order(kind, **values), actor="test")
    assert run_worker(home, HANDLERS, exit_when_idle=True)
    return store.job(job.id)


def fitted(store: Store, home: Home, project: Project, base: Path, mode: str, **values: object) -> Job:
    job = run(store, home, FitOrder, project_id=project.id, engine="stable-diffusion", base=str(base), mode=mode,
              batch_size=2, lora_rank=2, **({"steps": 2} | values))  # fmt: skip
    assert job.state == "done", store.job_traceback(job.id)
    return job


@pytest.mark.parametrize("mode", MODES)
def test_the_whole_loop(
    store: Store, home: Home, filled: Project, bases: dict[str, Path], mode: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(SAMPLER, "num_inference_steps", 2)
    fitted(store, home, filled, bases[mode], mode)
    model = store.active_model(filled.id, "engine")
    assert model.architecture["engine"] == "stable-diffusion" and model.metrics["num_images"] == 12
    run(store, home, TrainScorerOrder, project_id=filled.id, steps=3, batch_size=4)
    made = run(store, home, GenerateOrder, project_id=filled.id, count=10, candidates=3, seed=5)
    assert made.state == "done", store.job_traceback(made.id)
    samples = [store.sample(number) for number in made.result["sample_ids"]]
    assert len(samples) == 30 and {sample.engine for sample in samples} == {"stable-diffusion"}
    assert [usable.sample_id for usable in store.usable_samples(filled.id)] == [sample.id for sample in samples]
    assert {sample.settings["guidance_scale"] for sample in samples} == {5.0}
    for sample in samples[:6]:
        record = store.label_map(sample.label_map_id)
        image = store.image(record.image_id)
        assert sample.is_composite is (mode == "inpainting")
        if mode == "inpainting":
            assert sample.source_blob == image.blob and inpainting.real_image_of(sample) == image.id
            assert not inpainting.is_part(sample)
            assert lineage(store, sample)[1]["title"] == f"Only what the mask names, in real image {image.id}"
            part = named_region(store.blobs.label_map(record.blob), store.blobs.image(image.blob), side=SIDE)
            np.testing.assert_array_equal(store.blobs.image(sample.blob)[part.weight == 0], part.source[part.weight == 0])
    repeated = run(store, home, GenerateOrder, project_id=filled.id, count=10, candidates=3, seed=5)
    assert repeated.result == made.result and len(store.samples(filled.id)) == 30

    pair_set = pairing.build_pairs(store, filled.id, actor="test")
    assert pair_set.summary["num_candidates"] == 30 and pair_set.summary["by_source"]["real"] == 10
    if len(pair_set.pairs) < orders.MIN_PAIRS_TO_ALIGN:
        run(store, home, GenerateOrder, project_id=filled.id, count=12, candidates=4, seed=77)
        pair_set = pairing.build_pairs(store, filled.id, actor="test")
    job = run(store, home, AlignOrder, project_id=filled.id, pair_set_id=pair_set.id, steps=2, batch_size=2, gate_masks=4,
              gate_every=2, learning_rate=3e-3)  # fmt: skip
    curves = store.job_metrics(job.id)
    assert job.state in ("done", "failed") and [step for step, _ in curves["loss"]] == [1, 2], store.job_traceback(job.id)
    if job.state == "failed":
        assert "no checkpoint was better than the old model" in job.error
        return
    adapter = store.adapter(job.result["adapter_id"])
    store.accept_adapter(adapter.id, project_id=filled.id, actor="lead")
    again = run(store, home, GenerateOrder, project_id=filled.id, count=1, candidates=1)
    assert store.sample(again.result["sample_ids"][0]).adapter_id == adapter.id


class PassingGate(Gate):
    """Reads the images that it is given, and finds each set better than the one before."""

    def __post_init__(self) -> None:
        self.seen: list[list[np.ndarray]] = []

    def read(self, images: list[np.ndarray]) -> Reading:
        self.seen.append(images)
        dice = (0.5 + 0.1 * len(self.seen),) * len(images)
        flat = (1.0,) * len(images)
        return Reading(dice=dice, selector_dice=dice, feature_distance=1.0, appearance_distance=1.0, feature_left_out=flat,
                       appearance_left_out=flat, vendi=5.0, nearest=2.0)  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_the_adapter_that_passes_the_gate_makes_the_images_it_was_judged_by(bases, mode, tmp_path):
    images, label_maps = tiny.scenes(8, side=SIDE)
    pairs = [TrainingPair(label_map, image, np.where((label_map > 0)[..., None], 255 - image, image), 1.0, True, str(index))
             for index, (image, label_map) in enumerate(zip(images, label_maps, strict=True))]  # fmt: skip
    gate = PassingGate(label_maps, None, None, 3, images, images, pictures=images)
    config = AlignmentConfig(num_steps=3, gate_every=3, batch_size=2, lora_rank=2, learning_rate=3e-3)
    found = align(tiny_diffusion.engine(bases[mode], mode=mode), pairs, gate, config, silent, seeds=range(8))
    assert found.verdict.passed and found.step == 3
    file = tmp_path / "adapter.safetensors"
    file.write_bytes(weights.to_bytes(found.state))
    fresh = tiny_diffusion.engine(bases[mode], mode=mode)
    made = fresh.generate(label_maps, range(8), adapter=file, regions=gate.regions(fresh))
    np.testing.assert_array_equal(made, found.after)
    np.testing.assert_array_equal(fresh.generate(label_maps, range(8), regions=gate.regions(fresh)), found.before)
    assert not np.array_equal(found.before, found.after)
    second = PairTrainer(fresh, pairs, config, parent=file)  # the next round starts from it and is compared with it
    assert second.train_step()["accuracy"] == 0.5


def test_single_images_train_a_generator_that_paints_into_pictures(bases):
    images, label_maps = tiny.scenes(4, side=SIDE)
    pairs = [TrainingPair(label_maps[0], images[0], 255 - images[0], 1.0, True, "pair")]
    singles = [TrainingSingle(label_map, image, index % 2 == 0, 1.0, str(index))
               for index, (image, label_map) in enumerate(zip(images, label_maps, strict=True))]  # fmt: skip
    config = AlignmentConfig(batch_size=2, lora_rank=2, sft_weight=0.0)
    trainer = PairTrainer(tiny_diffusion.engine(bases["inpainting"]), pairs, config, singles=singles)
    assert trainer.train_step()["loss"] == pytest.approx(np.log(2) + 0.5, abs=1e-3)


def test_verdicts_on_images_that_are_painted_into_pictures_count(store: Store, filled: Project):
    record = next(record for record in store.label_maps(filled.id, splits=["train"]))
    source = inpainting.source_under(store, record)
    model = builders.add_engine(store, filled)
    made = [store.add_sample(
        filled.id, label_map_id=record.id, label_map_rev=record.rev, label_map_blob=record.blob, seed=seed,
        engine="stable-diffusion", blob=store.blobs.put_image(np.full((SIDE, SIDE, 3), seed, np.uint8)), model_id=model.id,
        adapter_id=None, purpose="pool", source_blob=source.blob, is_composite=True,
        settings={"inpaint": inpainting.recipe_of(source, class_index=None, dilate_px=8, is_whole=is_whole)},
    ) for seed, is_whole in enumerate((True, False))]  # fmt: skip
    for sample in made:
        store.add_thumb(filled.id, sample_id=sample.id, value="up", voter="ann", request_id=builders.new_request())
    found, _ = settle_singles(store, filled.id, votes=[], weights={}, reals={})
    assert [(single.blob, single.is_liked) for single in found] == [(made[0].blob, True)]  # of the other only a part was made


def test_masks_alone_do_not_test_a_generator_that_paints_into_pictures(bases):
    gate = PassingGate(tiny.scenes(4, side=SIDE)[1], None, None, 3, [], [])
    with pytest.raises(BadInputError, match="masks alone cannot test it"):
        gate.regions(tiny_diffusion.engine(bases["inpainting"]))
    assert gate.regions(tiny_diffusion.engine(bases["controlnet"], mode="controlnet")) is None


def test_gate_pictures_are_those_of_their_masks_mirrored_alike(store: Store, home: Home, filled: Project, tmp_path: Path):
    run(store, home, TrainScorerOrder, project_id=filled.id, steps=2, batch_size=4)
    gate = build_gate(store, filled, count=24, exclude=set(), with_pictures=True)
    assert len(gate.pictures) == len(gate.label_maps) == 24
    for picture, label_map in zip(gate.pictures, gate.label_maps, strict=True):
        asked = named_region(label_map, picture, side=SIDE).weight == 1
        green = picture[..., 1].astype(int) - picture[..., 0] > 20  # the organ's colour
        organ = fit_to(label_map, size=(SIDE, SIDE)) == 1
        assert (green & organ).sum() > 0.7 * organ.sum() and asked[organ].all()
    # The same for the evidence on unseen patients.
    base = tiny_diffusion.folder(tmp_path / "sd")
    made = tiny_diffusion.engine(base)
    own = weights.to_bytes(lora.state(lora.attach(made.denoiser, rank=2)))
    model = store.add_model(filled.id, kind="engine", architecture=made.architecture, file=store.files.put(weights.to_bytes({})),
                            metrics={}, actor="test")  # fmt: skip
    adapter = store.add_adapter(filled.id, model_id=model.id, parent_id=None, file=store.files.put(own), scale=1.0, config={},
                                metrics={}, actor="test")  # fmt: skip
    measured = measure_adapter(store, filled, adapter, num_masks=6)
    assert measured["win_rate"] == 0.5 and measured["dice_before"] == measured["dice_after"]  # a fresh adapter changes nothing


def test_a_second_fit_goes_on_from_the_first_and_needs_no_folder(store: Store, home: Home, filled: Project, bases):
    first = fitted(store, home, filled, bases["inpainting"], "inpainting", prompt="a tiny {classes}")
    again = run(store, home, FitOrder, project_id=filled.id, engine="stable-diffusion", steps=1, batch_size=2)
    assert again.state == "done", store.job_traceback(again.id)
    model = store.active_model(filled.id, "engine")
    assert model.parent_id == first.result["model_id"] and model.architecture["prompt"] == "a tiny {classes}"
    state = weights.read(store.files.path(model.file))
    assert {tensor.shape[0] for name, tensor in state.items() if "lora_A" in name} == {2}  # the rank of the first
    other = run(store, home, FitOrder, project_id=filled.id, engine="stable-diffusion", steps=1, batch_size=2, lora_rank=7)
    model = store.model(other.result["model_id"])
    assert model.parent_id is None
    assert 7 in {tensor.shape[0] for name, tensor in weights.read(store.files.path(model.file)).items() if "lora_A" in name}
    anew = run(store, home, FitOrder, project_id=filled.id, engine="stable-diffusion", steps=1, batch_size=2, from_scratch=True)
    assert store.model(anew.result["model_id"]).parent_id is None
    assert store.model(anew.result["model_id"]).architecture["prompt"] == orders.PROMPT
    compact = run(store, home, FitOrder, project_id=filled.id, steps=1, batch_size=2)
    assert store.model(compact.result["model_id"]).architecture["engine"] == "compact"
    assert store.model(compact.result["model_id"]).parent_id is None


def test_a_users_controlnet_is_where_the_fit_starts(store: Store, home: Home, filled: Project, bases, tmp_path: Path):
    torch.manual_seed(3)
    own = new_controlnet(tiny_diffusion.engine(bases["controlnet"], mode="controlnet").denoiser)
    with torch.no_grad():
        own.controlnet_mid_block.bias.fill_(7.0)
    own.save_pretrained(tmp_path / "own")
    fitted(store, home, filled, bases["controlnet"], "controlnet")  # one that there is already does not stand above it
    fitted(store, home, filled, bases["controlnet"], "controlnet", controlnet=str(tmp_path / "own"))
    made = load_engine(store, filled)
    assert 6 < float(made.controlnet.controlnet_mid_block.bias.mean()) < 8
    with pytest.raises(WeightsError, match="holds no ControlNet as safetensors"):
        read_controlnet(tmp_path)


def test_a_controlnet_that_cannot_be_used_is_told_before_the_job_is_queued(store: Store, filled: Project, bases, tmp_path: Path):
    def ordered(mode: str, folder: Path) -> None:
        wanted = {"project_id": filled.id, "engine": "stable-diffusion", "base": str(bases[mode]), "mode": mode}
        place(store, order(FitOrder, **wanted, controlnet=str(folder)), actor="ann")

    with pytest.raises(BadInputError, match="belongs to the mode controlnet; choose that mode"):
        ordered("inpainting", tmp_path)
    with pytest.raises(WeightsError, match="there is no folder"):
        ordered("controlnet", tmp_path / "none")
    with pytest.raises(WeightsError, match=r"config.json is missing or damaged"):
        ordered("controlnet", tmp_path)
    (tmp_path / "config.json").write_text('{"conditioning_channels": 1}')
    with pytest.raises(WeightsError, match="holds no ControlNet as safetensors"):
        ordered("controlnet", tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").touch()
    with pytest.raises(WeightsError, match="takes 1 channels; label maps come as pictures of 3"):
        ordered("controlnet", tmp_path)
    assert store.jobs() == []


def test_a_label_map_without_a_picture_is_refused_before_anything_is_made(store: Store, home: Home, filled: Project, bases):
    fitted(store, home, filled, bases["inpainting"], "inpainting")
    drawing = builders.add_label_map(store, filled, size_px=SIDE)
    with pytest.raises(BadInputError, match=rf"into a picture, and mask {drawing.id} has none under it; draw over"):
        place(store, order(GenerateOrder, project_id=filled.id, label_map_ids=[drawing.id]), actor="ann")
    image = store.images(filled.id)[0]
    over = store.add_label_map(filled.id, blob=drawing.blob, name="over", author="ann", request_id=builders.new_request(),
                               origin="drawn", underlay_id=image.id)  # fmt: skip
    settings = {"num_inference_steps": 2}
    job = run(store, home, GenerateOrder, project_id=filled.id, label_map_ids=[over.id], candidates=1, settings=settings)
    sample = store.sample(job.result["sample_ids"][0])
    assert sample.is_composite and sample.source_blob == image.blob
    part = run(store, home, GenerateOrder, project_id=filled.id, label_map_ids=[over.id], candidates=1, inpaint={
        "source": {"image_id": image.id}}, settings=settings)  # fmt: skip
    assert inpainting.is_part(store.sample(part.result["sample_ids"][0]))


def test_what_was_erased_from_the_mask_is_erased_from_the_picture(store: Store, home: Home, filled: Project, bases):
    fitted(store, home, filled, bases["inpainting"], "inpainting")
    image = store.images(filled.id)[0]
    own = store.blobs.label_map(store.label_map(image.label_map_id).blob)
    drawn = np.where(own == 1, np.uint8(0), own)
    over = store.add_label_map(filled.id, blob=store.blobs.put_label_map(drawn), name="without", author="ann", origin="drawn",
                               request_id=builders.new_request(), underlay_id=image.id)  # fmt: skip
    job = run(store, home, GenerateOrder, project_id=filled.id, label_map_ids=[over.id], candidates=1,
              settings={"num_inference_steps": 2})  # fmt: skip
    sample = store.sample(job.result["sample_ids"][0])
    made, before = store.blobs.image(sample.blob), named_region(own, store.blobs.image(image.blob), side=SIDE)
    organ = fit_to(own, size=(SIDE, SIDE)) == 1
    assert organ.sum() > 20 and (made != before.source).any(-1)[organ].mean() > 0.9
    np.testing.assert_array_equal(made[before.weight == 0], before.source[before.weight == 0])
    assert sample.settings["inpaint"]["source_label_map_blob"] == store.label_map(image.label_map_id).blob
    # What the mask calls unknown stays as it is.
    unknown = np.where(own == 1, np.uint8(255), own)
    kept = named_region(unknown, before.source, side=SIDE, shown=own).weight
    np.testing.assert_array_equal(kept, named_region(unknown, before.source, side=SIDE).weight)


def test_missing_weights_are_told_before_the_job_is_queued(store: Store, filled: Project, tmp_path: Path, bases):
    wanted = {"project_id": filled.id, "engine": "stable-diffusion"}
    with pytest.raises(WeightsError, match=r"say where the Stable Diffusion weights are: .*hf download stable-diffusion-v1-5/"):
        place(store, order(FitOrder, **wanted), actor="ann")
    with pytest.raises(WeightsError, match="does not exist; get the weights with: hf download"):
        place(store, order(FitOrder, **wanted, base=str(tmp_path / "none")), actor="ann")
    with pytest.raises(WeightsError, match="mode controlnet needs 4"):
        place(store, order(FitOrder, **wanted, base=str(bases["inpainting"]), mode="controlnet"), actor="ann")
    assert store.jobs() == []


# ---- few images


@pytest.mark.parametrize("mode", MODES)
def test_few_images_are_adapted_to_and_watched(store: Store, home: Home, filled: Project, bases, mode, monkeypatch):
    """Patients are held out, and what is published is the state that they speak for."""
    monkeypatch.setattr(few_shot, "CHECK_EVERY", 2)
    losses = iter([5.0, 4.0, 3.0, *[9.0] * 20])
    monkeypatch.setattr(few_shot.Watch, "held_out_loss", lambda self: next(losses))
    seen: dict[int, dict[str, torch.Tensor]] = {}
    original = few_shot.Watch.look

    def looked(self: few_shot.Watch, trainer: Trainer) -> bool:
        seen[trainer.step] = {name: tensor.detach().clone() for name, tensor in trainer.parameters.items()}
        return original(self, trainer)

    monkeypatch.setattr(few_shot.Watch, "look", looked)
    done = fitted(store, home, filled, bases[mode], mode, few=True, steps=30)
    assert (done.result["best_step"], done.result["held_out_loss"]) == (4, 3.0)
    assert done.result["steps"] == 4 + 2 * few_shot.PATIENCE and done.message.startswith("adapted to ")
    assert (done.result["copies"] is None) == (mode == "inpainting")  # painted parts lie in the training images themselves
    kept = weights.read(store.files.path(store.active_model(filled.id, "engine").file))
    adapted = [name for name in seen[4] if name.startswith(LORA)]
    assert adapted and sorted(seen) == list(range(2, 14, 2))
    for name in adapted:  # of step 4, and not of the last one
        saved = kept[LORA + name.removeprefix(LORA).replace(f".{lora.POLICY}.", ".")]
        torch.testing.assert_close(saved, seen[4][name], rtol=0, atol=0)
        assert not torch.equal(saved, seen[12][name])
    if mode == "controlnet":  # what follows does not depend on it, and takes half a minute
        return
    monkeypatch.setattr(few_shot.Watch, "held_out_loss", lambda self: float(next(rising)))
    rising = iter(range(1, 100))
    again = fitted(store, home, filled, bases[mode], mode, few=True, steps=30)
    assert again.result["best_step"] == 0 and again.message.endswith("the generator in use stays")
    assert store.active_model(filled.id, "engine").id == done.result["model_id"]


@pytest.mark.parametrize("mode", MODES)
def test_held_out_images_are_measured_with_the_engines_own_weights(bases, mode):
    trainer, _ = trainer_on(bases[mode], mode)
    images, label_maps = tiny.scenes(10, side=SIDE)
    watch, learnt = few_shot.watch_over(trainer.engine, images, label_maps, [f"p{number // 2}" for number in range(10)], seed=0,
                                        folder=None)  # fmt: skip
    assert len(learnt) == 8 and len(watch.held[0]) == 2
    first = watch.held_out_loss()
    assert first == watch.held_out_loss() > 0
    watch.start()
    before = few_shot.kept(trainer.parameters)
    for parameter in trainer.parameters.values():
        parameter.data.normal_(0, 0.5)
    assert watch.held_out_loss() != first
    trainer.step = few_shot.CHECK_EVERY
    watch.checks[trainer.step] = few_shot.Check(9.0, None)  # looked at, and not taken
    told = watch.settle(trainer, before)
    assert told["best_step"] == 0 and watch.held_out_loss() == pytest.approx(first, rel=1e-5)
