"""New label maps of a project's own anatomy: a light diffusion model on signed distances (after MedDiff-FT, arXiv:2507.00377)."""
