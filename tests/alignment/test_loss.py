import math

import pytest
import torch

from saadi.alignment.loss import default_beta, dpo_logit, dpo_loss


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
