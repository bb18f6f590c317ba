"""The only place that speaks SQL: `with Store.open(home) as store: ...`."""

from __future__ import annotations

from saadi.records import AuditRow
from saadi.store import audit, connection
from saadi.store.curation import CurationStore
from saadi.store.noise_shifts import NoiseShiftStore
from saadi.store.preferences import PreferenceStore
from saadi.store.queue import JobStore
from saadi.store.trials import TrialStore
from saadi.store.withdrawals import WithdrawalStore


class Store(PreferenceStore, TrialStore, CurationStore, NoiseShiftStore, WithdrawalStore, JobStore):
    """Everything a data folder holds. One instance = one connection = one thread; open it where you need it."""

    def audit_rows(self, *, limit: int = 100) -> list[AuditRow]:
        """Newest first."""
        return audit.rows(self.db, limit=limit)

    def first_broken_audit_row(self) -> int | None:
        """Sequence number of the first audit row that was tampered with; None when the chain holds."""
        return audit.first_broken(self.db)

    def quick_check(self) -> list[str]:
        """What SQLite finds wrong with the database file; empty = nothing."""
        return connection.quick_check(self.db)


__all__ = ["Store"]
