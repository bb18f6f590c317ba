"""Errors for people: every `SaadiError` becomes one sentence with a 4xx status, in one place; all else stays loud."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from saadi.errors import ConflictError, NotFoundError, SaadiError, StorageError, TooFewError

STATUS: tuple[tuple[type[SaadiError], int], ...] = (
    (NotFoundError, 404),
    (ConflictError, 409),
    (TooFewError, 422),
    (StorageError, 507),
)


def install(app: FastAPI) -> None:
    """Let an app answer user errors in words."""

    @app.exception_handler(SaadiError)
    def user_error(request: Request, error: SaadiError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=status_of(error))

    @app.exception_handler(RequestValidationError)
    def bad_body(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "request"
        return JSONResponse({"error": f"{where}: {first['msg'].lower()}; nothing was stored"}, status_code=422)


def status_of(error: SaadiError) -> int:
    """HTTP status for an error; 400 unless a closer one exists."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 400)
