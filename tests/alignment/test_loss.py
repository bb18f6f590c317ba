import math

import pytest
import torch

from saadi.alignment.loss import damped, default_beta, dpo_logit, dpo_loss, kto_loss, mapo_loss, sdpo_scale, sft_loss


def test_loss_is_ln_2_while_policy_equals_reference():
    errors = torch.tensor([0.3, 0.7])
    logit = dpo_logit(errors, errors + 1, errors, errors + 1, beta=5000.0)
    assert logit.tolist() == [0.0, 0.0] and float(dpo_loss(logit, torch.ones(2))) == pytest.approx(math.log(2))


def test_hand_derived_logit():
    # Policy gap 0.1 - 0.4 = -0.3, reference gap 0.2 - 0.3 = -0.1: -(10 / 2)(-0.3 + 0.1) = 1.
    one = [torch.tensor([value]) for value in (0.1, 0.4, 0.2, 0.3)]
    assert float(dpo_logit(*one, beta=10.0)) == pytest.approx(1.0)


def test_weights_are_a_weighted_mean():
    logit = torch.tensor([1.0, -2.0])
    expected = (0.5 * math.log(1 + math.exp(-1)) + 1.0 * math.log(1 + math.exp(2))) / 1.5
    assert float(dpo_loss(logit, torch.tensor([0.5, 1.0]))) == pytest.approx(expected, rel=1e-5)


def test_better_winner_lowers_the_loss_and_gradient_flows_to_both_arms():
    chosen, rejected = torch.tensor([0.2], requires_grad=True), torch.tensor([0.2], requires_grad=True)
    dpo_loss(dpo_logit(chosen, rejected, torch.tensor([0.2]), torch.tensor([0.2]), beta=2.0), torch.ones(1)).backward()
    assert float(chosen.grad) > 0 > float(rejected.grad)


def test_beta_grows_with_the_number_of_values():
    assert default_beta(16384) == pytest.approx(4915, rel=0.01) and default_beta(128 * 128 * 3) == pytest.approx(14746, rel=0.01)


def test_sdpo_damps_only_losers_that_pull_the_winner_along():
    winner = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    loser = torch.tensor([[2.0, 0.0], [0.1, 5.0], [-3.0, 1.0]])
    # (1 - 0.5) * 1 / 2 = 0.25; (1 - 0.5) * 1 / 0.1 = 5, at most 1; against the winner: untouched.
    assert sdpo_scale(winner, loser, mu=0.5).tolist() == pytest.approx([0.25, 1.0, 1.0])


def test_sdpo_keeps_the_winners_error_from_growing_to_first_order():
    """A linear denoiser w . x with one shared weight: a step of DPO alone raises the winner's error, a damped one does not."""
    x_winner, x_loser, target = torch.tensor([1.0]), torch.tensor([4.0]), torch.tensor([0.0])

    def winner_error_after(mu: float | None) -> tuple[float, float]:
        w = torch.tensor([1.0], requires_grad=True)
        chosen, rejected = w * x_winner - target, w * x_loser - target
        errors = chosen.square(), rejected.square()
        loser = errors[1] if mu is None else damped(errors[1], sdpo_scale(chosen[None], rejected[None], mu=mu)[0])
        dpo_loss(dpo_logit(errors[0], loser, errors[0].detach(), errors[1].detach(), beta=1.0), torch.ones(1)).backward()
        after = ((w - 1e-4 * w.grad) * x_winner).square()
        return float(errors[0].detach()), float(after.detach())

    before, plain = winner_error_after(None)
    assert plain > before
    # In parameters, not in predictions, the guarantee needs residuals and gradients to line up: here the loser's Jacobian is 4.
    assert winner_error_after(0.999)[1] <= before and winner_error_after(0.5)[1] < plain


def test_damping_changes_the_gradient_and_not_the_value():
    error = torch.tensor([3.0, 5.0], requires_grad=True)
    kept = damped(error, torch.tensor([0.25, 0.0]))
    kept.sum().backward()
    assert kept.tolist() == [3.0, 5.0] and error.grad.tolist() == [0.25, 0.0]


def test_kto_is_one_half_while_the_policy_equals_the_reference():
    errors = torch.tensor([0.3, 0.7, 0.1])
    assert float(kto_loss(errors, errors, torch.tensor([True, False, True]), torch.ones(3), beta=1000.0)) == pytest.approx(0.5)


def test_hand_derived_kto():
    # Gains 0.3 and -0.1, their mean 0.1: liked 1 - s(10 * 0.2), disliked 1 - s(-10 * -0.2) = 1 - s(2), both 0.1192.
    policy, reference = torch.tensor([0.2, 0.6]), torch.tensor([0.5, 0.5])
    found = kto_loss(policy, reference, torch.tensor([True, False]), torch.ones(2), beta=10.0)
    assert float(found) == pytest.approx(1 - 1 / (1 + math.exp(-2)), rel=1e-5)
    # A mean below 0 counts as 0: gain -0.1 liked alone gives 1 - s(-1).
    alone = kto_loss(torch.tensor([0.6]), torch.tensor([0.5]), torch.tensor([True]), torch.ones(1), beta=10.0)
    assert float(alone) == pytest.approx(1 - 1 / (1 + math.exp(1)), rel=1e-5)


def test_hand_derived_kto_with_weights():
    # Gains 0.3, 0.1, -0.2, 0.2, their mean 0.1. Liked: 1 - s(10 * 0.2), 1 - s(0) at half weight; disliked: 1 - s(10 * 0.3),
    # 1 - s(-10 * 0.1).
    policy, reference = torch.tensor([0.2, 0.4, 0.7, 0.3]), torch.full((4,), 0.5)
    liked, weight = torch.tensor([True, True, False, False]), torch.tensor([1.0, 0.5, 1.0, 1.0])

    def s(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    expected = ((1 - s(2)) + 0.5 * 0.5 + (1 - s(3)) + (1 - s(-1))) / 3.5
    assert float(kto_loss(policy, reference, liked, weight, beta=10.0)) == pytest.approx(expected, rel=1e-5)


def test_kto_pulls_liked_images_down_and_pushes_disliked_ones_up():
    policy = torch.tensor([0.5, 0.5], requires_grad=True)
    weight = torch.tensor([3.0, 1.0])
    kto_loss(policy, torch.tensor([0.5, 0.5]), torch.tensor([True, False]), weight, beta=10.0).backward()
    assert float(policy.grad[0]) == pytest.approx(-3 * float(policy.grad[1])) and float(policy.grad[0]) > 0


def test_hand_derived_mapo():
    # s(L) = 0.5 L / (exp(0.5 L) - 1): s(2) = 1 / (e - 1) = 0.58198, s(4) = 2 / (e^2 - 1) = 0.31304.
    found = mapo_loss(torch.tensor([2.0]), torch.tensor([4.0]), torch.ones(1), beta=0.1, scale=10.0)
    margin = 10 * (1 / (math.e - 1) - 2 / (math.e**2 - 1))
    assert float(found) == pytest.approx(2 + 0.1 * math.log(1 + math.exp(-margin)), rel=1e-5)


def test_mapo_lowers_the_winners_error_and_raises_the_losers():
    chosen, rejected = torch.tensor([0.2], requires_grad=True), torch.tensor([0.2], requires_grad=True)
    mapo_loss(chosen, rejected, torch.ones(1)).backward()
    assert float(chosen.grad) > 0 > float(rejected.grad)


def test_sft_is_a_weighted_mean():
    assert float(sft_loss(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 3.0]))) == pytest.approx(2.5)
