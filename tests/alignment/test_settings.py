"""What an order leaves open is chosen by engine and loss."""

from __future__ import annotations

import pytest

from saadi.alignment.material import config_of
from saadi.alignment.settings import AlignmentConfig
from saadi.orders import AlignOrder
from saadi.records import Project
from saadi.store import Store
from tests.builders import add_engine


@pytest.mark.parametrize(
    ("engine", "chosen", "learning_rate", "sft_weight"),
    [
        ("compact", {}, 1e-3, 3.0),
        ("compact", {"sft_weight": 10.0}, 1e-3, 10.0),
        # Nothing strong holds these on real images: small steps.
        ("compact", {"sft_weight": 1.0}, 1e-4, 1.0),
        ("compact", {"sft_weight": 0.0}, 1e-4, 0.0),
        ("compact", {"negative": 2.0}, 1e-4, 0.0),
        # Beside KTO's small gradient a strong denoising term would drown the pairs.
        ("compact", {"loss": "kto"}, 1e-4, 0.2),
        ("compact", {"loss": "sft"}, 1e-4, 0.2),
        ("compact", {"loss": "mapo"}, 1e-4, 3.0),
        ("stable-diffusion", {"loss": "mapo"}, 1e-4, 3.0),
        ("stable-diffusion", {}, 1e-4, 0.2),
        ("compact", {"learning_rate": 3e-4}, 3e-4, 3.0),
        ("stable-diffusion", {"sft_weight": 3.0}, 1e-4, 3.0),
    ],
)
def test_steps_are_large_only_where_they_are_known_to_be_held(engine, chosen, learning_rate, sft_weight):
    order = AlignOrder(project_id=1, pair_set_id=1, **chosen).model_dump()
    config = config_of(order, engine=engine)
    assert (config.learning_rate, config.sft_weight) == (learning_rate, sft_weight)


def test_an_order_of_an_earlier_version_keeps_its_settings():
    order = AlignOrder(project_id=1, pair_set_id=1, learning_rate=1e-4, sft_weight=0.2).model_dump()
    for later in ("loss", "sdpo_mu", "accumulation", "ema_decay", "scale_search", "checkpointing", "negative"):
        del order[later]
    assert config_of(order, engine="compact") == AlignmentConfig(learning_rate=1e-4, sft_weight=0.2)


def test_what_was_left_open_is_settled_when_a_job_starts(store: Store, project: Project):
    add_engine(store, project)
    frozen = AlignOrder(project_id=project.id, pair_set_id=1).frozen(store)
    assert (frozen.learning_rate, frozen.sft_weight) == (1e-3, 3.0) and frozen.frozen(store) == frozen
    chosen = AlignOrder(project_id=project.id, pair_set_id=1, learning_rate=2e-5, model_id=frozen.model_id).frozen(store)
    assert (chosen.learning_rate, chosen.sft_weight) == (2e-5, 3.0)
