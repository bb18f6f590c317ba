import pytest
import torch

from saadi.engines.base import no_callback
from saadi.engines.samplers import SAMPLERS, time_grid


def test_grid_runs_from_noise_to_image():
    assert time_grid(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert time_grid(4, shift=3.0) == pytest.approx([1.0, 0.9, 0.75, 0.5, 0.0])


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_perfect_denoiser_is_reached_exactly(name):
    target = torch.full((2, 3, 4, 4), 0.25)
    made = SAMPLERS[name](lambda noisy, time: target, torch.randn(2, 3, 4, 4), steps=5, shift=2.0, on_step=no_callback)
    torch.testing.assert_close(made, target)


@pytest.mark.parametrize(("name", "tolerance"), [("euler", 0.05), ("dpm_solver_2m", 0.02)])
def test_gaussian_data_keep_their_spread(name, tolerance):
    # For x ~ N(0, s^2) the best estimate is x_t (1-t) s^2 / ((1-t)^2 s^2 + t^2), and the exact ODE maps N(0, 1) onto N(0, s^2).
    spread = 0.5

    def best(noisy: torch.Tensor, time: float) -> torch.Tensor:
        return noisy * (1 - time) * spread**2 / ((1 - time) ** 2 * spread**2 + time**2)

    noise = torch.randn(1, 1, 100, 100, generator=torch.Generator().manual_seed(0))
    made = SAMPLERS[name](best, noise, steps=40, shift=1.0, on_step=no_callback)
    assert float(made.std()) == pytest.approx(spread, rel=tolerance)
