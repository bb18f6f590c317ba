"""The map of a project: pictures that look alike lie close together, synthetic and real ones on one sheet."""

from __future__ import annotations

from typing import Any

import numpy as np

from saadi import curation, quality, quality_gate
from saadi.errors import TooFewError
from saadi.jobs import JobContext, Outcome
from saadi.quality import Features
from saadi.store import Store

NUM_COMPONENTS = 50
MAX_LANDMARKS = 3000
"""t-SNE lays out at most so many (9 s on one core; it grows faster than their number), the others join their neighbours."""
NUM_NEIGHBOURS = 3
MIN_TO_LAY_OUT = 8
"""Below, t-SNE has nothing to go by: the first two principal components are the map."""
SEED = 0


def lay_out(vectors: Features, *, seed: int = SEED) -> Features:
    """Return (N, 2) float32 in [0, 1]: neighbours in `vectors` stay neighbours; the same input gives the same map.

    PCA to 50 dimensions, then t-SNE (van der Maaten and Hinton 2008) that starts from the first two components. Above 3,000
    pictures, a random 3,000 are laid out and each other one is put at the mean of its three nearest, weighted by nearness.
    Distances between far groups mean nothing.
    """
    from sklearn.decomposition import PCA  # here: 1 s, which no other job of the worker has to pay
    from sklearn.manifold import TSNE

    # Equal pictures share a place; and a set of only equal ones makes scikit-learn's t-SNE end the process (NaN in its tree).
    vectors, places = np.unique(np.asarray(vectors, np.float32), axis=0, return_inverse=True)
    if len(vectors) == 1:
        return np.full((len(places), 2), 0.5, np.float32)
    components = min(NUM_COMPONENTS, len(vectors), vectors.shape[1])
    flat = PCA(components, random_state=seed).fit_transform(vectors).astype(np.float32)
    if len(vectors) < MIN_TO_LAY_OUT or flat[:, 0].std() < 1e-6:
        return _in_unit_square(np.pad(flat, ((0, 0), (0, 2)))[:, :2])[places]
    chosen = np.random.default_rng(seed).permutation(len(flat))[:MAX_LANDMARKS]
    perplexity = min(30.0, (len(chosen) - 1) / 3)
    placed = TSNE(2, init="pca", random_state=seed, perplexity=perplexity).fit_transform(flat[chosen])
    points = np.empty((len(flat), 2), np.float32)
    points[chosen] = placed
    rest = np.setdiff1d(np.arange(len(flat)), chosen)
    if len(rest):
        points[rest] = _beside_neighbours(flat[rest], flat[chosen], placed)
    return _in_unit_square(points)[places]


def _beside_neighbours(vectors: Features, landmarks: Features, placed: Features) -> Features:
    """(N, 2) means of the places of the three nearest landmarks, weighted by 1 / distance."""
    from sklearn.neighbors import NearestNeighbors

    distances, indices = NearestNeighbors(n_neighbors=min(NUM_NEIGHBOURS, len(landmarks))).fit(landmarks).kneighbors(vectors)
    weights = 1 / (distances + 1e-6)
    return np.asarray((placed[indices] * weights[..., None]).sum(1) / weights.sum(1, keepdims=True), dtype=np.float32)


def _in_unit_square(points: Features) -> Features:
    """Shifted and scaled by one factor, so that shapes keep their proportions; the shorter side is centred."""
    low, high = points.min(0), points.max(0)
    size = max(float((high - low).max()), 1e-9)
    return np.asarray((points - (low + high) / 2) / size + 0.5, dtype=np.float32)


def run_job(context: JobContext) -> Outcome:
    """Job `map`: look at what has not been looked at, then lay everything out."""
    store = context.store
    project = store.project(context.params["project_id"])
    curation.describe_project(store, project, context.report)
    quality_gate.describe_project(store, project, context.report)
    wanted = store.projection_input(project.id, quality.LOOK)
    rows, images = store.sample_rows(project.id), store.images(project.id)
    vectors = store.descriptors(quality.LOOK, [*(row.blob for row in rows), *(image.blob for image in images)])
    rows = [row for row in rows if row.blob in vectors]
    images = [image for image in images if image.blob in vectors]
    if len(rows) + len(images) < 2:
        raise TooFewError("there are fewer than two images to lay out; import or generate some first")
    context.report(0, 1, f"laying out {len(rows) + len(images)} images")
    raw = np.stack([vectors[blob] for blob in [*(row.blob for row in rows), *(image.blob for image in images)]])
    reference = raw[len(rows) :] if len(images) >= MIN_TO_LAY_OUT else raw
    points = lay_out((raw - reference.mean(0)) / np.maximum(reference.std(0), quality.look_floor()))
    context.report(1, 1, "laid out")

    def publish(store: Store) -> dict[str, Any]:
        store.set_projection(project.id, input=wanted, sample_ids=[row.id for row in rows],
                             image_ids=[image.id for image in images], points=points)  # fmt: skip
        return {"num_samples": len(rows), "num_images": len(images)}

    return Outcome(f"{len(rows)} synthetic and {len(images)} real images laid out", publish)
