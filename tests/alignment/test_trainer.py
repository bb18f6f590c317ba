import math
from dataclasses import replace

import pytest
import torch

from saadi import devices
from saadi.alignment.loss import KTO_SHARE, kto_loss
from saadi.alignment.settings import AlignmentConfig, TrainingPair, TrainingSingle, pairs_at_once, split_pairs
from saadi.alignment.trainer import PairTrainer
from saadi.engines import lora, weights
from saadi.errors import TooFewError
from tests import tiny

CONFIG = AlignmentConfig(num_steps=6, batch_size=4, lora_rank=2, learning_rate=1e-3, held_out_share=0.25)


def pairs(count: int = 8, *, swapped: bool = False) -> list[TrainingPair]:
    made = []
    for seed in range(count):
        (image, label_map), (other, _) = tiny.scene(seed), tiny.scene(seed + 100)
        chosen, rejected = (other, image) if swapped else (image, other)
        made.append(TrainingPair(label_map, chosen, rejected, weight=1.0, is_real=seed % 2 == 0, group=str(seed // 2)))
    return made


def test_first_loss_is_exactly_ln_2():
    trainer = PairTrainer(tiny.engine(), pairs(), AlignmentConfig(batch_size=4, lora_rank=2, sft_weight=0.0))
    assert trainer.train_step()["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_real_winners_add_their_denoising_error():
    keys = [(0, 0), (1, 1), (2, 2), (3, 3)]
    plain = PairTrainer(tiny.engine(), pairs(), AlignmentConfig(batch_size=4, lora_rank=2, sft_weight=0.0))
    anchored = PairTrainer(tiny.engine(), pairs(), AlignmentConfig(batch_size=4, lora_rank=2, sft_weight=0.5))
    with torch.no_grad():
        chosen = plain.errors(keys)[0]
        extra = float(anchored.loss(keys)[0]) - float(plain.loss(keys)[0])
    assert extra == pytest.approx(0.5 * float((chosen[0] + chosen[2]) / 2), rel=1e-4)


def test_only_the_adapter_learns_and_switching_it_off_gives_the_base():
    made = tiny.engine()
    base = {name: tensor.clone() for name, tensor in made.denoiser.state_dict().items()}
    trainer = PairTrainer(made, pairs(), CONFIG)
    keys = [(0, 0), (1, 1), (2, 2), (3, 3)]
    before = trainer.reference_errors(keys).clone()
    trainer.train_step()
    assert any(float(parameter.detach().abs().max()) > 0 for name, parameter in trainer.parameters.items() if "lora_B" in name)
    trainer._reference.clear()
    torch.testing.assert_close(trainer.reference_errors(keys), before, rtol=0, atol=0)
    for name, tensor in made.denoiser.state_dict().items():
        plain = name.replace(".base_layer", "")
        if plain in base:
            torch.testing.assert_close(tensor, base[plain], rtol=0, atol=0)


def test_training_raises_accuracy_on_its_pairs():
    trainer = PairTrainer(tiny.engine(), pairs(), AlignmentConfig(num_steps=30, batch_size=8, lora_rank=4, learning_rate=3e-3))
    for _ in range(30):
        numbers = trainer.train_step()
    assert numbers["accuracy"] > 0.8


def test_interrupted_alignment_equals_uninterrupted(tmp_path):
    whole = PairTrainer(tiny.engine(), pairs(), CONFIG)
    for _ in range(6):
        whole.train_step()
    broken = PairTrainer(tiny.engine(), pairs(), CONFIG)
    for _ in range(3):
        broken.train_step()
    broken.save(tmp_path, {"note": 1})
    resumed = PairTrainer(tiny.engine(), pairs(), CONFIG)
    assert resumed.restore(tmp_path) == {"note": 1} and resumed.step == 3
    for _ in range(3):
        resumed.train_step()
    for name, parameter in whole.parameters.items():
        torch.testing.assert_close(resumed.parameters[name], parameter, msg=name)


def test_second_round_starts_from_and_is_compared_with_the_first(tmp_path):
    first = PairTrainer(tiny.engine(), pairs(), CONFIG)
    for _ in range(4):
        first.train_step()
    file = tmp_path / "adapter.safetensors"
    file.write_bytes(weights.to_bytes(lora.state(first.policy)))
    second = PairTrainer(tiny.engine(), pairs(), CONFIG, parent=file)
    keys = [(0, 0), (1, 1), (2, 2), (3, 3)]
    with torch.no_grad():
        torch.testing.assert_close(second.errors(keys), first.errors(keys), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(second.reference_errors(keys), second.errors(keys), rtol=1e-4, atol=1e-6)
        reference = second.reference_errors(keys).clone()
    assert not any("reference" in name for name in second.parameters)
    second.train_step()
    second._reference.clear()
    torch.testing.assert_close(second.reference_errors(keys), reference, rtol=1e-4, atol=1e-6)


def test_a_second_round_keeps_the_rank_of_the_first(tmp_path):
    file = tmp_path / "adapter.safetensors"
    file.write_bytes(weights.to_bytes(lora.state(PairTrainer(tiny.engine(), pairs(), CONFIG).policy)))
    trainer = PairTrainer(tiny.engine(), pairs(), AlignmentConfig(batch_size=4, lora_rank=5), parent=file)
    assert {p.shape[0] for name, p in trainer.parameters.items() if "lora_A" in name} == {2}


def test_anchors_hold_the_model_where_no_winner_is_real():
    drawn = [replace(pair, is_real=False) for pair in pairs()]
    plain = PairTrainer(tiny.engine(), drawn, CONFIG)
    anchored = PairTrainer(tiny.engine(), drawn, CONFIG, anchors=[tiny.scene(1)])
    assert anchored.train_step()["loss"] > plain.train_step()["loss"]
    some_real = PairTrainer(tiny.engine(), pairs(), AlignmentConfig(batch_size=32, lora_rank=2), anchors=[tiny.scene(1)])
    without = PairTrainer(tiny.engine(), pairs(), AlignmentConfig(batch_size=32, lora_rank=2))
    assert some_real.train_step()["loss"] == without.train_step()["loss"]


def test_label_maps_are_never_split():
    made = pairs(20)
    train_ids, held_ids = split_pairs(made, share=0.3, seed=0)
    assert not {made[index].group for index in train_ids} & {made[index].group for index in held_ids}
    assert sorted(train_ids + held_ids) == list(range(20)) and held_ids


def test_gradient_alarm_needs_a_lasting_jump():
    trainer = PairTrainer(tiny.engine(), pairs(), CONFIG)
    for norm in [1.0] * 30 + [20.0, 1.0, 20.0, 20.0]:
        trainer._watch(norm)
        assert trainer.alarm() is None
    trainer._watch(20.0)
    assert "times its median" in trainer.alarm()
    trainer._watch(float("nan"))
    assert "no longer a number" in trainer.alarm()


def test_errors_are_told_as_multiples_of_the_reference():
    trainer = PairTrainer(tiny.engine(), pairs(), CONFIG)
    for _ in range(3):
        trainer.train_step()
    keys = [(0, 0), (1, 1), (2, 2), (3, 3)]
    with torch.no_grad():
        numbers = trainer.loss(keys)[1]
        policy, reference = trainer.errors(keys).mean(1), trainer.reference_errors(keys).mean(1)
    assert [numbers["winner_error"], numbers["loser_error"]] == pytest.approx((policy / reference).tolist(), rel=1e-5)


def test_a_kept_adapter_does_not_change_while_training_goes_on():
    trainer = PairTrainer(tiny.engine(), pairs(), CONFIG)
    trainer.train_step()
    kept = lora.state(trainer.policy)
    before = {name: tensor.clone() for name, tensor in kept.items()}
    trainer.train_step()
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in lora.state(trainer.policy).items())


def test_a_checkpoint_of_other_pairs_or_masks_is_not_continued(tmp_path):
    PairTrainer(tiny.engine(), pairs(8), CONFIG, measured_on="a").save(tmp_path, {"note": 1})
    assert PairTrainer(tiny.engine(), pairs(6), CONFIG, measured_on="a").restore(tmp_path) is None
    assert PairTrainer(tiny.engine(), pairs(8), CONFIG, measured_on="b").restore(tmp_path) is None
    assert PairTrainer(tiny.engine(), pairs(8), CONFIG, measured_on="a").restore(tmp_path) == {"note": 1}


@pytest.mark.parametrize(("loss", "first"), [("dpo", math.log(2)), ("kto", 0.5)])
def test_losses_with_a_reference_start_where_the_policy_equals_it(loss: str, first: float):
    trainer = PairTrainer(tiny.engine(), pairs(), replace(CONFIG, sft_weight=0.0, loss=loss))
    assert trainer.train_step()["loss"] == pytest.approx(first, abs=1e-5)


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_every_preference_loss_learns_to_prefer_the_winners(loss: str):
    config = AlignmentConfig(num_steps=30, batch_size=8, lora_rank=4, learning_rate=3e-3, loss=loss, sft_weight=0.2)
    trainer = PairTrainer(tiny.engine(), pairs(), config)
    accuracies = [trainer.train_step()["accuracy"] for _ in range(30)]
    assert sum(accuracies[-10:]) / 10 > 0.65


def test_mapo_opens_a_wider_gap_than_winners_alone():
    def gap(loss: str) -> float:
        config = AlignmentConfig(num_steps=40, batch_size=8, lora_rank=4, learning_rate=3e-3, loss=loss, sft_weight=0.0)
        trainer = PairTrainer(tiny.engine(), pairs(), config)
        numbers = [trainer.train_step() for _ in range(40)][-10:]
        return sum(one["rejected_error"] - one["chosen_error"] for one in numbers)

    assert gap("mapo") > gap("sft")


def test_learning_from_winners_alone_takes_no_notice_of_the_losers():
    config = replace(CONFIG, loss="sft", sft_weight=0.0)
    other = [replace(pair, rejected=tiny.scene(900 + index)[0]) for index, pair in enumerate(pairs())]
    first, second = (PairTrainer(tiny.engine(), made, config) for made in (pairs(), other))
    assert [first.train_step()["loss"] for _ in range(3)] == [second.train_step()["loss"] for _ in range(3)]


def test_residuals_square_to_the_errors():
    trainer = PairTrainer(tiny.engine(), pairs(), CONFIG)
    keys = [(0, 0), (1, 1), (2, 2)]
    with torch.no_grad():
        errors, residuals = trainer._errors_and_residuals(keys)
        torch.testing.assert_close(errors, trainer.errors(keys))
    torch.testing.assert_close((residuals**2).mean((2, 3, 4)), errors)


def test_damping_holds_the_winners_error_down():
    """Small beta, where plain DPO pays for its margin with the winners; the first order holds for small steps."""

    def winner_error(mu: float | None) -> float:
        config = AlignmentConfig(num_steps=40, batch_size=8, lora_rank=4, learning_rate=1e-3, beta=50.0, sft_weight=0, sdpo_mu=mu)
        trainer = PairTrainer(tiny.engine(), pairs(), config)
        return [trainer.train_step()["winner_error"] for _ in range(40)][-1]

    assert winner_error(0.9) < winner_error(None)


def test_accumulated_batches_are_the_mean_of_their_gradients():
    """Two batches of 4 in one step against their gradients one by one."""
    config = replace(CONFIG, sft_weight=0.0, accumulation=2)
    trainer, single = PairTrainer(tiny.engine(), pairs(), config), PairTrainer(tiny.engine(), pairs(), config)
    for made in (trainer, single):
        for name, parameter in made.parameters.items():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(0))
    found: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(config.seed * 1_000_003)
    for _ in range(2):
        chosen = torch.randint(len(single.train_ids), (4,), generator=generator)
        draws = torch.randint(8, (4,), generator=generator)
        single.optimizer.zero_grad(set_to_none=True)
        single.loss([(single.train_ids[int(i)], int(draw)) for i, draw in zip(chosen, draws, strict=True)])[0].backward()
        for name, parameter in single.parameters.items():
            found[name] = found.get(name, 0) + parameter.grad / 2
    norm = trainer.train_step()["gradient_norm"]
    assert norm == pytest.approx(float(torch.stack([gradient.norm() for gradient in found.values()]).norm()), rel=1e-4)
    for name, parameter in trainer.parameters.items():
        torch.testing.assert_close(parameter.grad, found[name] * min(1.0, 1.0 / (norm + 1e-6)), rtol=1e-3, atol=1e-6)


def test_the_moving_average_is_tested_and_the_last_step_goes_on():
    trainer = PairTrainer(tiny.engine(), pairs(), replace(CONFIG, ema_decay=0.9))
    name = next(name for name in trainer.parameters if "lora_B" in name)
    expected = trainer.parameters[name].detach().clone()
    for step in range(1, 4):
        trainer.train_step()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * trainer.parameters[name].detach()
    last = trainer.parameters[name].detach().clone()
    with trainer.averaged():
        torch.testing.assert_close(trainer.parameters[name].detach(), expected)
        kept = lora.state(trainer.policy)
    torch.testing.assert_close(trainer.parameters[name].detach(), last, rtol=0, atol=0)
    assert any(not torch.equal(kept[key], tensor) for key, tensor in lora.state(trainer.policy).items())


def test_an_interrupted_run_has_the_same_moving_average(tmp_path):
    config = replace(CONFIG, ema_decay=0.9)
    whole, cut = PairTrainer(tiny.engine(), pairs(), config), PairTrainer(tiny.engine(), pairs(), config)
    for _ in range(4):
        whole.train_step()
    for _ in range(2):
        cut.train_step()
    cut.save(tmp_path, {})
    resumed = PairTrainer(tiny.engine(), pairs(), config)
    assert resumed.restore(tmp_path) == {}
    for _ in range(2):
        resumed.train_step()
    for name, tensor in whole.average.items():
        torch.testing.assert_close(resumed.average[name], tensor, rtol=0, atol=0)


def test_gradients_are_the_same_when_activations_are_computed_anew():
    """The reference's forward runs with the adapter off before; the recomputation in the backward pass must not."""
    keys = [(0, 0), (1, 1), (2, 2), (3, 3)]
    found = []
    for checkpointing in (False, True):
        trainer = PairTrainer(tiny.engine(), pairs(), replace(CONFIG, checkpointing=checkpointing))
        for name, parameter in trainer.parameters.items():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(0))
        loss, _ = trainer.loss(keys)
        loss.backward()
        found.append((float(loss.detach()), {name: parameter.grad for name, parameter in trainer.parameters.items()}))
    assert found[0][0] == found[1][0]
    for name, gradient in found[0][1].items():
        assert gradient.abs().max() > 0 or "lora_A" not in name
        torch.testing.assert_close(found[1][1][name], gradient, rtol=0, atol=0)


def with_an_adapter_that_does_something(config: AlignmentConfig, **more) -> PairTrainer:
    made = [replace(pair, weight=0.25 + 0.25 * (index % 4)) for index, pair in enumerate(pairs())]
    trainer = PairTrainer(tiny.engine(), made, config, **more)
    for name, parameter in trainer.parameters.items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(0))
    return trainer


def gradients(trainer: PairTrainer) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in trainer.parameters.items()}


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max()) + 1e-9, msg=name)


@pytest.mark.parametrize(("changes", "at_once"), [
    ({}, 1), ({}, 2), ({"loss": "kto"}, 2), ({"loss": "mapo"}, 1), ({"loss": "sft"}, 2), ({"sdpo_mu": 0.5}, 1),
])  # fmt: skip
def test_a_batch_in_parts_has_the_gradient_of_the_whole(changes: dict, at_once: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "fast_dtype", lambda on: torch.float32)  # bfloat16 rounds by the shape of a batch
    config = replace(CONFIG, beta=20.0, sft_weight=0.5, **changes)
    keys = [(0, 0), (1, 1), (2, 2), (3, 3)]
    whole, parted = with_an_adapter_that_does_something(config), with_an_adapter_that_does_something(config)
    assert whole.at_once == 4
    parted.at_once = at_once
    loss, numbers = whole.loss(keys)
    loss.backward()
    found = parted.add_gradient(keys)
    # A logit is beta times a difference of float32 errors, which kernels of other shapes round otherwise.
    assert found == pytest.approx(numbers | {"loss": float(loss.detach())}, rel=1e-4, abs=1e-5)
    assert_same_gradients(gradients(parted), gradients(whole))


def test_anchors_and_single_images_in_parts_have_the_gradient_of_the_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "fast_dtype", lambda on: torch.float32)
    made = [replace(single, weight=0.5 + 0.1 * index) for index, single in enumerate(singles())]
    found = []
    for at_once in (4, 1):
        trainer = with_an_adapter_that_does_something(replace(CONFIG, beta=20.0), singles=made,
                                                      anchors=[tiny.scene(seed) for seed in range(4)])  # fmt: skip
        trainer.is_real[:] = False
        trainer.at_once = at_once
        found.append((trainer.train_step(), gradients(trainer)))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-4)
    assert_same_gradients(found[1][1], found[0][1])


@pytest.mark.parametrize(("batch_size", "side", "at_once"), [
    (8, 64, 8), (8, 128, 8), (32, 128, 16), (8, 256, 4), (6, 256, 3), (7, 256, 1), (8, 512, 1),
])  # fmt: skip
def test_large_images_are_computed_in_equal_parts(batch_size: int, side: int, at_once: int):
    assert pairs_at_once(batch_size, 3 * side * side) == at_once
    assert pairs_at_once(batch_size, 3 * side * side, is_sparing=True) == 1


# ---- single images


def singles(count: int = 6, *, weight: float = 1.0) -> list[TrainingSingle]:
    """Green organs are liked, the same scenes in false colours are not; each under a label map of its own."""
    made = []
    for seed in range(count):
        image, label_map = tiny.scene(500 + seed)
        is_liked = seed % 2 == 0
        made.append(TrainingSingle(label_map, image if is_liked else image[..., ::-1].copy(), is_liked, weight, f"s{seed}"))
    return made


def test_without_single_images_a_run_is_what_it_was():
    plain = PairTrainer(tiny.engine(), pairs(), CONFIG)
    other = PairTrainer(tiny.engine(), pairs(), replace(CONFIG, singles_weight=7.0), singles=[])
    assert [plain.train_step() for _ in range(3)] == [other.train_step() for _ in range(3)]
    assert plain.settings.keys() == other.settings.keys() and "num_singles" not in plain.settings


def test_single_images_add_their_loss_which_starts_at_one_half():
    config = replace(CONFIG, sft_weight=0.0, singles_weight=2.0)
    trainer = PairTrainer(tiny.engine(), pairs(), config, singles=singles())
    assert trainer.train_step()["loss"] == pytest.approx(math.log(2) + 2 * 0.5, abs=1e-5)


def test_the_loss_on_single_images_is_kto_on_their_errors():
    trainer = PairTrainer(tiny.engine(), pairs(), CONFIG, singles=singles(weight=0.5))
    reference = trainer.single_errors([(0, 1), (1, 2), (2, 0), (3, 5)]).detach()  # the policy equals the reference still
    for _ in range(3):
        trainer.train_step()
    keys = [(0, 1), (1, 2), (2, 0), (3, 5)]
    with torch.no_grad():
        policy, found = trainer.single_errors(keys), float(trainer.singles_loss(keys))
    liked, weight = torch.tensor([True, False, True, False]), torch.full((4,), 0.5)
    expected = float(kto_loss(policy, reference, liked, weight, beta=KTO_SHARE * trainer.beta))
    assert found == pytest.approx(expected, rel=1e-4) and abs(found - 0.5) > 1e-6


def test_liking_lowers_the_error_of_what_is_liked_and_not_of_what_is_not():
    config = AlignmentConfig(num_steps=40, batch_size=4, lora_rank=4, learning_rate=2e-3, sft_weight=0.0, singles_weight=20.0)
    trainer = PairTrainer(tiny.engine(), pairs(), config, singles=singles(8))
    keys = [(index, draw) for index in range(8) for draw in (0, 4)]
    with torch.no_grad():
        before = trainer.single_errors(keys)
        for _ in range(40):
            with torch.enable_grad():
                trainer.train_step()
        gain = 1 - trainer.single_errors(keys) / before
    liked = torch.tensor([trainer.singles[index].is_liked for index, _ in keys])
    assert float(gain[liked].mean()) > float(gain[~liked].mean()) + 0.02


def test_a_step_draws_liked_and_disliked_images_alike_and_only_by_seed_and_step():
    made = singles(10) + singles(40)[1::2]  # 5 liked, 25 disliked
    trainer = PairTrainer(tiny.engine(), pairs(), CONFIG, singles=made)
    drawn = []
    for trainer.step in range(20):
        drawn.append(trainer._single_keys())
        assert sum(made[index].is_liked for index, _ in drawn[-1]) == 2
    assert len({key for keys in drawn for key in keys}) > 40
    again = PairTrainer(tiny.engine(), pairs(), CONFIG, singles=made)
    again.step = 7
    assert again._single_keys() == drawn[7]


def test_interrupted_alignment_with_single_images_equals_uninterrupted(tmp_path):
    whole = PairTrainer(tiny.engine(), pairs(), CONFIG, singles=singles())
    for _ in range(6):
        whole.train_step()
    broken = PairTrainer(tiny.engine(), pairs(), CONFIG, singles=singles())
    for _ in range(3):
        broken.train_step()
    broken.save(tmp_path, {})
    resumed = PairTrainer(tiny.engine(), pairs(), CONFIG, singles=singles())
    assert PairTrainer(tiny.engine(), pairs(), CONFIG).restore(tmp_path) is None  # one of other images is not continued
    assert resumed.restore(tmp_path) == {}
    for _ in range(3):
        resumed.train_step()
    for name, parameter in whole.parameters.items():
        torch.testing.assert_close(resumed.parameters[name], parameter, rtol=0, atol=0, msg=name)


def test_single_images_of_a_held_out_label_map_are_not_trained_on():
    made = pairs()
    held = made[split_pairs(made, share=CONFIG.held_out_share, seed=CONFIG.seed)[1][0]].group
    trainer = PairTrainer(tiny.engine(), made, CONFIG, singles=[replace(one, group=held) for one in singles(3)] + singles(2))
    assert trainer.single_ids == [3, 4]


@pytest.mark.parametrize("loss", ["sft", "mapo"])
def test_losses_of_winners_or_without_a_reference_take_no_single_images(loss: str):
    config = replace(CONFIG, loss=loss)
    plain, other = PairTrainer(tiny.engine(), pairs(), config), PairTrainer(tiny.engine(), pairs(), config, singles=singles())
    assert [plain.train_step() for _ in range(2)] == [other.train_step() for _ in range(2)]


def test_dislikes_alone_train_nothing():
    disliked = [single for single in singles() if not single.is_liked]
    with pytest.raises(TooFewError, match="3 disliked images and nothing that is liked"):
        PairTrainer(tiny.engine(), [], CONFIG, singles=disliked)
    with pytest.raises(TooFewError, match="no pairs to learn from"):
        PairTrainer(tiny.engine(), [], CONFIG)
