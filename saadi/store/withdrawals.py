"""Patients who have withdrawn: their images are in no split any more, and everything that knows them can be named.

An image keeps the split that it had in `withdrawn_from`; that it is in none now is what keeps it from whoever fits, trains,
aligns, measures or exports, without any of them having to ask. Traces are worked out when they are asked for, never stored.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from saadi.config import Home
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
"""Strongest first."""
HASH = re.compile(r"[0-9a-f]{64}")


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

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self._known_traces: dict[int, tuple[tuple[int, int], Trace]] = {}

    def withdraw(self, project_id: int, group_id: str, *, person: str, reason: str) -> Withdrawal:
        """Take a patient out of everything that is done from now on. A repeat gives the first.

        Raises:
            BadInputError: No reason.
            NotFoundError: The project has no such patient.
        """
        reason = checked_reason(reason)
        with self.write() as db:
            away = ("UPDATE images SET withdrawn_from = split, split = 'none' WHERE project_id = ? AND group_id = ? AND "
                    "withdrawn_from IS NULL")  # fmt: skip
            if (known := self._standing(project_id, group_id)) is not None:
                db.execute(away, [project_id, group_id])  # images of theirs may have come since
                return known
            first = db.execute("SELECT min(id), count(*) FROM images WHERE project_id = ? AND group_id = ?",
                               [project_id, group_id]).fetchone()  # fmt: skip
            if first[0] is None:
                raise NotFoundError("this project has no such patient; reload the page")
            number = new_id(db.table("withdrawals").insert({"project_id": project_id, "group_id": group_id, "person": person,
                                                            "reason": reason, "created_at": now()}))  # fmt: skip
            db.execute(away, [project_id, group_id])
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
        if not groups:
            return NOTHING
        if self.db.conn.in_transaction:  # what is written may be rolled back
            return self.trace(project_id, groups)
        # A request asks several times, and nothing is worked out again until somebody has written.
        state = (self.db.execute("PRAGMA data_version").fetchone()[0], self.db.conn.total_changes)
        known = self._known_traces.get(project_id)
        if known is None or known[0] != state:
            known = self._known_traces[project_id] = (state, self.trace(project_id, groups))
        return known[1]

    def trace(self, project_id: int, groups: Iterable[str]) -> Trace:
        """Where data of these patients are, or may be; the same before they withdraw as after."""
        wanted = set(groups)
        images = tuple(image for image in self.images(project_id) if image.group_id in wanted)
        if not images:
            return NOTHING
        blobs = {image.blob for image in images}
        seen = _Seen(images, [row for row in self.withdrawals(project_id) if row.group_id in wanted],
                     self._placed_at(project_id))  # fmt: skip
        models = self._models(project_id, seen)
        mask_blobs = self._mask_blobs(self._label_maps({image.id for image in images}))
        mask_models = {model.id for model in self.mask_models(project_id) if mask_blobs & set(model.bases)}
        rows = self._sample_rows(project_id)
        samples = _inherited(rows, self._own(project_id, wanted, images, rows))
        adapters = self._adapters(project_id, models, seen, blobs | {row.blob for row in rows if row.id in samples})
        noise_shifts = {row["id"] for row in self._made(project_id, "noise_shifts") if seen.by(row)
                        or row["model_id"] in models or row["selector_id"] in models or row["adapter_id"] in adapters}
        drawn = self._drawn(project_id, mask_models)
        for row in rows:
            is_version = row.model_id in models or row.adapters & adapters or row.noise_shift_id in noise_shifts
            if is_version or row.label_map_id in drawn:
                samples.setdefault(row.id, "version")
        samples = _inherited(rows, samples)
        ties: dict[str, Tie] = {}
        for row in rows:
            if row.id in samples:  # of several samples with the same pixels the strongest
                ties[row.blob] = _stronger(samples[row.id], ties.get(row.blob))
        ties |= dict.fromkeys(blobs, "real")
        return Trace(
            images=images, models=frozenset(models), adapters=frozenset(adapters), mask_models=frozenset(mask_models),
            noise_shifts=frozenset(noise_shifts), samples=samples, exports=self._exports(ties),
            jobs=tuple(row["id"] for row in self.db.query(
                "SELECT id FROM jobs WHERE project_id = ? AND state IN ('queued', 'running') ORDER BY id", [project_id])),
            elsewhere=tuple(row["project_id"] for row in self.db.query(
                f"SELECT DISTINCT project_id FROM images WHERE project_id <> ? AND withdrawn_from IS NULL AND blob {AMONG} "
                "ORDER BY project_id", [project_id, dump(sorted(blobs))])))  # fmt: skip

    def withdrawn_pairs(self, project_id: int, pair_set_id: int) -> bool:
        """Whether a frozen set of pairs and single images holds data of somebody who has withdrawn."""
        if not self.withdrawn_groups(project_id):
            return False
        trace, told = self.standing_trace(project_id), self._pairs_told(pair_set_id)
        own = {number for number, tie in trace.samples.items() if tie in OWN}
        blobs = {image.blob for image in trace.images} | {
            row["blob"] for row in self.db.query(f"SELECT blob FROM samples WHERE id {AMONG}", [dump(sorted(own))])}
        return bool(blobs & told)

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

    def refuse_withdrawn(self, export_id: int) -> None:
        """Raises: BadInputError: nobody may take this export out of the program any more, as it holds data of a patient who has
        withdrawn, or images by a version that may have learnt from one and nobody gave a reason or a signature for that."""
        tied = self.withdrawn_in(export_id)
        if own := sum(tied.get(tie, 0) for tie in OWN):
            raise BadInputError(f"{own} images of export {export_id} hold data of a patient who has withdrawn; export again, "
                                "which leaves them out (where the same pixels are in several projects, withdraw there, too)")
        if tied and (since := self._tied_since(export_id, self._answered(export_id))):
            raise BadInputError(f"{since} images of export {export_id} were made by a version that may have learnt "
                                "from a patient who has withdrawn; export again, which leaves them out, or say there why they "
                                "may go in")

    def _answered(self, export_id: int) -> int:
        """Row of the trail at which somebody last answered for its images by tied versions: with a reason when it was ordered, or
        with a signature; 0 = never."""
        found = [self._row("export.release", f"export:{export_id}")]
        made = ("SELECT audit.seq, exports.job_id FROM audit JOIN exports ON exports.id = ? WHERE audit.action = 'export' AND "
                "json_extract(audit.details, '$.manifest') = exports.manifest_sha256 AND "
                "json_extract(audit.details, '$.despite_withdrawn') IS NOT NULL")  # fmt: skip
        for seq, job_id in self.db.execute(made, [export_id]):
            found.append((self._row("job.export", f"job:{job_id}") if job_id is not None else 0) or seq)
        return max(found)

    def _tied_since(self, export_id: int, seq: int) -> int:
        """Images of an export by versions that may have learnt from patients who have withdrawn after that row of the trail."""
        later: dict[int, set[str]] = {}
        sql = ("SELECT w.project_id, w.group_id FROM withdrawals AS w JOIN audit ON audit.action = 'patient.withdraw' AND "
               "audit.subject = 'withdrawal:' || w.id WHERE w.revoked_at IS NULL AND audit.seq > ?")  # fmt: skip
        for row in self.db.query(sql, [seq]):
            later.setdefault(row["project_id"], set()).add(row["group_id"])
        return sum(self.trace(project_id, groups).exports.get(export_id, {}).get("version", 0)
                   for project_id, groups in later.items())  # fmt: skip

    def _looked_at(self, disclosure_id: int) -> int:
        """Row of the trail of an audit, or of that which it repeats with another word on text."""
        while (before := self.disclosure(disclosure_id).findings.get("repeats")) is not None:
            disclosure_id = before
        return self._row("disclosure.audit", f"disclosure:{disclosure_id}")

    def _row(self, action: str, subject: str) -> int:
        """Number of the newest row of the trail of that kind; 0 = none."""
        sql = "SELECT coalesce(max(seq), 0) FROM audit WHERE action = ? AND subject = ?"
        return int(self.db.execute(sql, [action, subject]).fetchone()[0])

    def _anybody_withdrawn(self, project_id: int) -> bool:
        """In this project, or in one that shares pixels with it."""
        sql = ("SELECT 1 FROM withdrawals WHERE revoked_at IS NULL AND (project_id = :p OR project_id IN (SELECT "
               "theirs.project_id FROM images AS mine JOIN images AS theirs ON theirs.blob = mine.blob "
               "WHERE mine.project_id = :p)) LIMIT 1")  # fmt: skip
        return self.db.execute(sql, {"p": project_id}).fetchone() is not None

    def release(self, export_id: int, *, disclosure_id: int, person: str, reason: str, despite: bool = False) -> Release:
        """As `ReleaseStore.release`, and by what is known of patients who have withdrawn since the audit.

        Raises:
            BadInputError: Also where data of such a patient are in it, or images by a version that may have learnt from them and
                nobody said that it goes despite that.
        """
        with self.write():
            export = self.export(export_id)
            is_signed = any(one.export_id == export_id for one in self.releases(export.project_id))
            tied = {} if is_signed else self.withdrawn_in(export_id)
            if not is_signed and export.num_items and not self.export_items(export_id) and self._anybody_withdrawn(
                export.project_id):  # fmt: skip
                raise BadInputError(f"nobody knows what was in export {export_id}, which is older than the ledger, and a patient "
                                    "has withdrawn since; export again, which leaves out what is theirs")
            if own := sum(tied.get(tie, 0) for tie in OWN):
                raise BadInputError(f"{own} images of export {export_id} hold data of a patient who has withdrawn; export again, "
                                    "which leaves them out")
            if tied and self._tied_since(export_id, self._looked_at(disclosure_id)):
                raise BadInputError(f"a patient from whom a version in it may have learnt has withdrawn since export {export_id} "
                                    "was audited; audit it again, and read what was found")
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
        """What jobs have made, oldest first, with the order of each."""
        return self.db.query(f"SELECT made.*, jobs.params FROM {table} AS made "
                             "LEFT JOIN jobs ON jobs.id = made.job_id WHERE made.project_id = ? ORDER BY made.id", [project_id])

    def _models(self, project_id: int, seen: _Seen) -> set[int]:
        found: set[int] = set()
        for row in self._made(project_id, "models"):
            if seen.by(row) or row["parent_id"] in found:
                found.add(row["id"])
        return found

    def _adapters(self, project_id: int, models: set[int], seen: _Seen, blobs: set[str]) -> set[int]:
        found, told = set[int](), dict[int, bool]()
        for row in self._made(project_id, "adapters"):
            if seen.by(row) or row["model_id"] in models or row["parent_id"] in found:
                found.add(row["id"])
            elif (number := json.loads(row["params"] or "{}").get("pair_set_id")) is not None:
                if number not in told:  # thousands of pairs are read once, and where nothing else ties
                    told[number] = bool(blobs & self._pairs_told(number))
                found |= {row["id"]} if told[number] else set()
        return found

    def _pairs_told(self, pair_set_id: int) -> set[str]:
        """Every blob that a frozen set of pairs and single images names."""
        return {blob for row in self.db.query("SELECT pairs, singles FROM pair_sets WHERE id = ?", [pair_set_id])
                for text in row.values() for blob in HASH.findall(text)}  # fmt: skip

    def _placed_at(self, project_id: int) -> dict[int, str]:
        """Job -> when it was placed; of one that goes on with others, when the oldest was."""
        found: dict[int, str] = {}
        for row in self.db.query("SELECT id, created_at, json_extract(params, '$.continues') AS before FROM jobs "
                                 "WHERE project_id = ? ORDER BY id", [project_id]):  # fmt: skip
            found[row["id"]] = found.get(row["before"], row["created_at"])
        return found

    def _drawn(self, project_id: int, mask_models: set[int]) -> set[int]:
        """Label maps that one of these mask generators has drawn, or may have: a search of an earlier program told no number."""
        if not mask_models:
            return set()
        born = {model.id: model.created_at for model in self.mask_models(project_id)}
        first = min(born[number] for number in mask_models)
        jobs = {row["id"]: row["model_id"] for row in self.db.query(
            "SELECT id, coalesce(json_extract(result, '$.mask_model_id'), json_extract(params, '$.spares[0].mask_model_id')) "
            "AS model_id FROM jobs WHERE project_id = ? AND kind IN ('suggest_masks', 'mine')", [project_id])}  # fmt: skip
        found = set[int]()
        for row in self.db.query(
            "SELECT m.id, r.request_id, r.created_at FROM label_maps AS m JOIN label_map_revisions AS r ON r.label_map_id = m.id "
            "WHERE m.project_id = ? AND r.rev = 1 AND (r.request_id LIKE 'suggested-%' OR r.request_id LIKE 'mined-%')",
            [project_id]):  # fmt: skip
            number = row["request_id"].split("-")[1]
            model_id = jobs.get(int(number)) if number.isdecimal() else None
            if model_id in mask_models or (model_id is None and row["created_at"] >= first):
                found.add(row["id"])
        return found

    def _sample_rows(self, project_id: int) -> list[_Row]:
        """Of all samples; settings of thousands are read only where they name another picture, version or start."""
        found = self.db.execute(
            "SELECT id, blob, source_blob, label_map_id, model_id, adapter_id, is_composite, CASE WHEN "
            "instr(settings, '\"references\":[') OR instr(settings, '\"noise_shift_id\":') OR instr(settings, '\"negative\":{') "
            "THEN settings END FROM samples WHERE project_id = ? ORDER BY id", [project_id])  # fmt: skip
        rows = []
        for number, blob, source_blob, label_map_id, model_id, adapter_id, is_composite, settings in found:
            told = json.loads(settings) if settings else {}
            adapters = {adapter_id, (told.get("negative") or {}).get("adapter_id")} - {None}
            rows.append(_Row(number, blob, source_blob, label_map_id, model_id, frozenset(adapters), bool(is_composite),
                             tuple(told.get("references") or ()), told.get("noise_shift_id")))  # fmt: skip
        return rows

    def _own(self, project_id: int, groups: set[str], images: Sequence[RealImage], rows: Sequence[_Row]) -> dict[int, Tie]:
        """Samples tied by data of the patients themselves, each alone."""
        ids, blobs = {image.id for image in images}, {image.blob for image in images}
        of_group = {number for number, group in self.sample_groups(project_id).items() if group in groups}
        is_whole = self.project(project_id).task == "classification"
        maps = set() if is_whole else self._label_maps(ids)
        found: dict[int, Tie] = {}
        for row in rows:
            if row.is_composite and (row.id in of_group or row.source_blob in blobs):
                found[row.id] = "pixels"
            elif row.id in of_group or row.label_map_id in maps:
                found[row.id] = "mask"
            elif row.source_blob in blobs or any(one.get("image_id") in ids or one.get("blob") in blobs
                                                 for one in row.references):  # fmt: skip
                found[row.id] = "look"
        return found

    def _exports(self, ties: dict[str, Tie]) -> dict[int, dict[Tie, int]]:
        found: dict[int, Counter[Tie]] = {}
        for row in self.db.query(f"SELECT export_id, blob FROM export_items WHERE blob {AMONG}", [dump(sorted(ties))]):
            found.setdefault(row["export_id"], Counter())[ties[row["blob"]]] += 1
        return {number: dict(counts) for number, counts in sorted(found.items())}


class _Row(NamedTuple):
    """What may tie a sample to a patient."""

    id: int
    blob: str
    source_blob: str | None
    label_map_id: int
    model_id: int
    adapters: frozenset[int]
    """The one that made it, and one that it was steered away from."""
    is_composite: bool
    references: tuple[dict[str, Any], ...]
    noise_shift_id: int | None


def _stronger(one: Tie, other: Tie | None) -> Tie:
    return one if other is None or STRENGTH.index(one) < STRENGTH.index(other) else other


def _inherited(rows: Sequence[_Row], ties: Mapping[int, Tie]) -> dict[int, Tie]:
    """The same ties, and those of samples that were painted into or like a tied one, and into or like these, and so on."""
    blob_of = {row.id: row.blob for row in rows}
    heirs: dict[str, list[tuple[_Row, bool]]] = {}
    for row in rows:
        if row.source_blob is not None:
            heirs.setdefault(row.source_blob, []).append((row, False))
        for one in row.references:
            if blob := one.get("blob") or blob_of.get(one.get("sample_id", 0)):
                heirs.setdefault(blob, []).append((row, True))
    found = dict(ties)
    left = [(blob_of[number], tie) for number, tie in ties.items() if blob_of[number] in heirs] if heirs else []
    while left:
        blob, tie = left.pop()
        for row, is_look in heirs.get(blob, ()):
            passed: Tie = "look" if is_look and tie in OWN else tie
            if row.id not in found or _stronger(passed, found[row.id]) != found[row.id]:
                found[row.id] = passed
                left.append((row.blob, passed))
    return found


class _Seen:
    """When images of patients could be learnt from: of each patient since they came, but for the times of a withdrawal."""

    def __init__(self, images: Sequence[RealImage], withdrawals: Sequence[Withdrawal], placed_at: Mapping[int, str]) -> None:
        self.placed_at = placed_at
        self.since: dict[str, str] = {}
        for image in images:
            if (image.withdrawn_from or image.split) == "train":
                self.since[image.group_id] = min(image.created_at, self.since.get(image.group_id, image.created_at))
        self.away: dict[str, list[tuple[str, str | None]]] = {}
        for record in withdrawals:
            self.away.setdefault(record.group_id, []).append((record.created_at, record.revoked_at))

    def by(self, row: dict[str, Any]) -> bool:
        """Whether the job that made this may have read them: they were there at some time between its order and its result, as
        a job may wait, stop and go on. What came without a job was learnt elsewhere."""
        if row["job_id"] is None:
            return False
        first, last = self.placed_at.get(row["job_id"], row["created_at"]), row["created_at"]
        return any(max(first, since) <= last and not any(begin < max(first, since) and (end is None or last < end)
                                                         for begin, end in self.away.get(group, ()))
                   for group, since in self.since.items())  # fmt: skip
