"""Patients who have withdrawn: their images are in no split any more, and everything that knows them can be named.

An image keeps the split that it had in `withdrawn_from`; that it is in none now is what keeps it from whoever fits, trains,
aligns, measures or exports, without any of them having to ask. Traces are worked out when they are asked for, never stored.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from saadi.errors import BadInputError, NotFoundError
from saadi.records import RealImage, Release, Withdrawal
from saadi.store import audit
from saadi.store.connection import dump, new_id, now
from saadi.store.library import LibraryStore
from saadi.store.mask_models import MaskModelStore
from saadi.store.releases import checked_reason
from saadi.store.texts import AMONG, TextStore

Tie = Literal["real", "pixels", "mask", "look", "version"]
"""What ties an image to a patient: it is theirs, holds pixels of theirs, was made under a mask of theirs, after the look of an
image of theirs, or by a model that may have learnt from them."""
OWN: tuple[Tie, ...] = ("real", "pixels", "mask", "look")
"""Ties through data of the patient; an image with one of them goes into no export."""


STRENGTH: tuple[Tie, ...] = (*OWN, "version")


@dataclass(frozen=True)
class Trace:
    """Where data of patients are, or may be."""

    images: tuple[RealImage, ...]
    models: frozenset[int]
    """Generators, selectors and judges that may have learnt from them, themselves or through what they go on from."""
    adapters: frozenset[int]
    mask_models: frozenset[int]
    noise_shifts: frozenset[int]
    samples: dict[int, Tie]
    """The strongest tie of each."""
    exports: dict[int, dict[Tie, int]]
    """Export -> images of each tie in it; of all projects."""
    jobs: tuple[int, ...]
    """That run or wait in the project."""
    elsewhere: tuple[int, ...]
    """Other projects that hold the same pixels, where nobody has withdrawn."""


NOTHING = Trace((), frozenset(), frozenset(), frozenset(), frozenset(), {}, {}, (), ())


class WithdrawalStore(LibraryStore, TextStore, MaskModelStore):
    """The part of the store that knows who has withdrawn."""

    def withdraw(self, project_id: int, group_id: str, *, person: str, reason: str) -> Withdrawal:
        """Take a patient out of everything that is done from now on. A repeat gives the first.

        Raises:
            BadInputError: No reason.
            NotFoundError: The project has no such patient.
        """
        reason = checked_reason(reason)
        with self.write() as db:
            if (known := self._standing(project_id, group_id)) is not None:
                return known
            first = db.execute("SELECT min(id), count(*) FROM images WHERE project_id = ? AND group_id = ?",
                               [project_id, group_id]).fetchone()  # fmt: skip
            if first[0] is None:
                raise NotFoundError("this project has no such patient; reload the page")
            number = new_id(db.table("withdrawals").insert({"project_id": project_id, "group_id": group_id, "person": person,
                                                            "reason": reason, "created_at": now()}))  # fmt: skip
            db.execute("UPDATE images SET withdrawn_from = split, split = 'none' WHERE project_id = ? AND group_id = ? AND "
                       "withdrawn_from IS NULL", [project_id, group_id])  # fmt: skip
            # The trail names the first image, as exports do, and no patient.
            audit.append(db, actor=person, action="patient.withdraw", subject=f"withdrawal:{number}",
                         details={"reason": reason, "project": project_id, "group": f"group-{first[0]:06d}", "images": first[1]})
        return self.withdrawal(number)

    def revoke_withdrawal(self, withdrawal_id: int, *, person: str, reason: str) -> Withdrawal:
        """Take a withdrawal back: the images go where they were. A repeat gives the first.

        Raises:
            BadInputError: No reason.
        """
        reason = checked_reason(reason)
        with self.write() as db:
            record = self.withdrawal(withdrawal_id)
            if record.revoked_at is not None:
                return record
            db.execute("UPDATE withdrawals SET revoked_by = ?, revoked_reason = ?, revoked_at = ? WHERE id = ?",
                       [person, reason, now(), withdrawal_id])  # fmt: skip
            db.execute("UPDATE images SET split = withdrawn_from, withdrawn_from = NULL WHERE project_id = ? AND group_id = ? "
                       "AND withdrawn_from IS NOT NULL", [record.project_id, record.group_id])  # fmt: skip
            audit.append(db, actor=person, action="patient.withdrawal_revoked", subject=f"withdrawal:{withdrawal_id}",
                         details={"reason": reason, "project": record.project_id})
        return self.withdrawal(withdrawal_id)

    def withdrawal(self, withdrawal_id: int) -> Withdrawal:
        for row in self.db.query("SELECT * FROM withdrawals WHERE id = ?", [withdrawal_id]):
            return Withdrawal(**row)
        raise NotFoundError(f"no withdrawal {withdrawal_id}; see `saadi withdrawals`")

    def withdrawals(self, project_id: int) -> list[Withdrawal]:
        """Oldest first, those that were taken back too."""
        return [Withdrawal(**row) for row in self.db.query("SELECT * FROM withdrawals WHERE project_id = ? ORDER BY id",
                                                           [project_id])]  # fmt: skip

    def withdrawn_groups(self, project_id: int) -> set[str]:
        """Patients of whom nothing may be used now."""
        return {record.group_id for record in self.withdrawals(project_id) if record.revoked_at is None}

    def withdrawn_label_maps(self, project_id: int) -> set[int]:
        """Label maps of images of patients who have withdrawn, and drawings over them; none in classification, where a label map
        is a class and nobody's."""
        if not self.withdrawn_groups(project_id) or self.project(project_id).task == "classification":
            return set()
        return {row[0] for row in self.db.execute(
            "SELECT m.id FROM label_maps AS m JOIN images AS i ON i.id = coalesce(m.image_id, m.underlay_id) "
            "WHERE m.project_id = ? AND i.withdrawn_from IS NOT NULL", [project_id])}  # fmt: skip

    def standing_trace(self, project_id: int) -> Trace:
        """Of everybody who has withdrawn and has not taken it back."""
        groups = self.withdrawn_groups(project_id)
        return self.trace(project_id, groups) if groups else NOTHING

    def trace(self, project_id: int, groups: Iterable[str]) -> Trace:
        """Where data of these patients are, or may be; the same before they withdraw as after."""
        wanted = set(groups)
        images = tuple(image for image in self.images(project_id) if image.group_id in wanted)
        if not images:
            return NOTHING
        blobs = {image.blob for image in images}
        seen = _Seen(images, [row for row in self.withdrawals(project_id) if row.group_id in wanted])
        models = self._models(project_id, seen)
        samples = self._samples(project_id, wanted, images, models)
        own = blobs | {blob for blob, tie in samples.values() if tie in OWN}
        adapters = self._adapters(project_id, models, seen, own)
        samples = self._samples(project_id, wanted, images, models, adapters)
        ties: dict[str, Tie] = {}
        for blob, tie in sorted(samples.values(), key=lambda one: STRENGTH.index(one[1]), reverse=True):
            ties[blob] = tie  # of several samples with the same pixels the strongest
        for blob in blobs:
            ties[blob] = "real"
        mask_blobs = self._mask_blobs(self._label_maps({image.id for image in images}))
        return Trace(
            images=images, models=frozenset(models), adapters=frozenset(adapters),
            mask_models=frozenset(model.id for model in self.mask_models(project_id) if mask_blobs & set(model.bases)),
            noise_shifts=frozenset(row["id"] for row in self._made(project_id, "noise_shifts")
                                   if seen.by(row) or row["model_id"] in models or row["adapter_id"] in adapters),
            samples={number: tie for number, (_, tie) in samples.items()}, exports=self._exports(ties),
            jobs=tuple(row["id"] for row in self.db.query(
                "SELECT id FROM jobs WHERE project_id = ? AND state IN ('queued', 'running') ORDER BY id", [project_id])),
            elsewhere=tuple(row["project_id"] for row in self.db.query(
                f"SELECT DISTINCT project_id FROM images WHERE project_id <> ? AND withdrawn_from IS NULL AND blob {AMONG} "
                "ORDER BY project_id", [project_id, dump(sorted(blobs))])))  # fmt: skip

    def withdrawn_pairs(self, project_id: int, pair_set_id: int) -> bool:
        """Whether a frozen set of pairs and single images holds data of somebody who has withdrawn."""
        if not self.withdrawn_groups(project_id):
            return False
        trace, told = self.standing_trace(project_id), self._pairs_told(project_id)[pair_set_id]
        own = {number for number, tie in trace.samples.items() if tie in OWN}
        blobs = {image.blob for image in trace.images} | {
            row["blob"] for row in self.db.query(f"SELECT blob FROM samples WHERE id {AMONG}", [dump(sorted(own))])}
        return any(blob in told for blob in blobs)

    def withdrawn_in(self, export_id: int) -> dict[Tie, int]:
        """Images of an export that are tied to somebody who has withdrawn, in whatever project, by tie."""
        return self.withdrawn_exports().get(export_id, {})

    def withdrawn_exports(self) -> dict[int, dict[Tie, int]]:
        """The same of every export that holds any."""
        found: dict[int, Counter[Tie]] = {}
        for row in list(self.db.query("SELECT DISTINCT project_id FROM withdrawals WHERE revoked_at IS NULL")):
            for number, counts in self.standing_trace(row["project_id"]).exports.items():
                found.setdefault(number, Counter()).update(counts)
        return {number: dict(counts) for number, counts in found.items()}

    def release(self, export_id: int, *, disclosure_id: int, person: str, reason: str, despite: bool = False) -> Release:
        """As `ReleaseStore.release`, and by what is known of patients who have withdrawn since the audit.

        Raises:
            BadInputError: Also where data of such a patient are in it, or images by a version that may have learnt from them and
                nobody said that it goes despite that.
        """
        with self.write():
            tied = {} if any(one.export_id == export_id for one in self.releases(self.export(export_id).project_id)) else (
                self.withdrawn_in(export_id))  # fmt: skip
            if own := sum(tied.get(tie, 0) for tie in OWN):
                raise BadInputError(f"{own} images of export {export_id} hold data of a patient who has withdrawn; export again, "
                                    "which leaves them out")
            if tied and not despite:
                raise BadInputError(f"{tied['version']} images of export {export_id} were made by a version that may have learnt "
                                    "from a patient who has withdrawn; release it despite that only if you can answer for it")
            return super().release(export_id, disclosure_id=disclosure_id, person=person, reason=reason, despite=despite)

    def _standing(self, project_id: int, group_id: str) -> Withdrawal | None:
        return next((record for record in self.withdrawals(project_id)
                     if record.group_id == group_id and record.revoked_at is None), None)  # fmt: skip

    def _label_maps(self, image_ids: set[int]) -> set[int]:
        return {row[0] for row in self.db.execute(f"SELECT id FROM label_maps WHERE coalesce(image_id, underlay_id) {AMONG}",
                                                  [dump(sorted(image_ids))])}  # fmt: skip

    def _mask_blobs(self, label_map_ids: set[int]) -> set[str]:
        """Of all their revisions."""
        return {row[0] for row in self.db.execute(f"SELECT DISTINCT blob FROM label_map_revisions WHERE label_map_id {AMONG}",
                                                  [dump(sorted(label_map_ids))])} if label_map_ids else set()  # fmt: skip

    def _made(self, project_id: int, table: Literal["models", "adapters", "noise_shifts"]) -> Iterator[dict[str, Any]]:
        """What jobs have made, oldest first, with when each job was placed and last started."""
        return self.db.query(f"SELECT made.*, jobs.created_at AS placed_at, jobs.started_at, jobs.params FROM {table} AS made "
                             "LEFT JOIN jobs ON jobs.id = made.job_id WHERE made.project_id = ? ORDER BY made.id", [project_id])

    def _models(self, project_id: int, seen: _Seen) -> set[int]:
        found: set[int] = set()
        for row in self._made(project_id, "models"):
            if seen.by(row) or row["parent_id"] in found:
                found.add(row["id"])
        return found

    def _adapters(self, project_id: int, models: set[int], seen: _Seen, blobs: set[str]) -> set[int]:
        pair_sets = self._pairs_told(project_id)
        found: set[int] = set()
        for row in self._made(project_id, "adapters"):
            told = pair_sets.get(json.loads(row["params"] or "{}").get("pair_set_id"), "")
            learnt = seen.by(row) or any(blob in told for blob in blobs)
            if learnt or row["model_id"] in models or row["parent_id"] in found:
                found.add(row["id"])
        return found

    def _pairs_told(self, project_id: int) -> dict[int, str]:
        """Set of pairs -> its JSON: a hash of 64 digits is found in it or not, without reading thousands of pairs."""
        return {row["id"]: row["pairs"] + row["singles"] for row in
                self.db.query("SELECT id, pairs, singles FROM pair_sets WHERE project_id = ?", [project_id])}  # fmt: skip

    def _samples(self, project_id: int, groups: set[str], images: Sequence[RealImage], models: set[int],
                 adapters: Iterable[int] = ()) -> dict[int, tuple[str, Tie]]:
        """Sample id -> its blob and its strongest tie."""
        ids, blobs, adapters = {image.id for image in images}, {image.blob for image in images}, set(adapters)
        of_group = {number for number, group in self.sample_groups(project_id).items() if group in groups}
        is_whole = self.project(project_id).task == "classification"
        maps = set() if is_whole else self._label_maps(ids)
        found: dict[int, tuple[str, Tie]] = {}
        for row in self.db.query("SELECT id, blob, label_map_id, model_id, adapter_id, is_composite, settings FROM samples "
                                 "WHERE project_id = ?", [project_id]):  # fmt: skip
            tie: Tie | None = None
            if row["id"] in of_group or row["label_map_id"] in maps:
                tie = "pixels" if row["id"] in of_group and row["is_composite"] else "mask"
            elif any(one.get("image_id") in ids or one.get("blob") in blobs
                     for one in json.loads(row["settings"]).get("references") or ()):  # fmt: skip
                tie = "look"
            elif row["model_id"] in models or row["adapter_id"] in adapters:
                tie = "version"
            if tie is not None:
                found[row["id"]] = (row["blob"], tie)
        return found

    def _exports(self, ties: dict[str, Tie]) -> dict[int, dict[Tie, int]]:
        found: dict[int, Counter[Tie]] = {}
        for row in self.db.query(f"SELECT export_id, blob FROM export_items WHERE blob {AMONG}", [dump(sorted(ties))]):
            found.setdefault(row["export_id"], Counter())[ties[row["blob"]]] += 1
        return {number: dict(counts) for number, counts in sorted(found.items())}


class _Seen:
    """When images of a patient could be learnt from: since they came, but for the times of a withdrawal."""

    def __init__(self, images: Sequence[RealImage], withdrawals: Sequence[Withdrawal]) -> None:
        training = [image.created_at for image in images if (image.withdrawn_from or image.split) == "train"]
        self.since = min(training) if training else None
        self.away = [(record.created_at, record.revoked_at) for record in withdrawals]

    def by(self, row: dict[str, Any]) -> bool:
        """Whether the job that made this may have read them: it was placed or (last) started when they were there. What came
        without a job was learnt elsewhere."""
        return row["job_id"] is not None and any(self._at(time) for time in (row["placed_at"], row["started_at"]) if time)

    def _at(self, time: str) -> bool:
        if self.since is None or time < self.since:
            return False
        return not any(begin < time and (end is None or time < end) for begin, end in self.away)
