"""What people and programs note about images without changing them: marks, descriptors, the map; and the grid's plain rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saadi.errors import BadInputError
from saadi.records import Curation, Mark, MarkKind, ModelKind, Projection
from saadi.store import audit
from saadi.store.base import StoreBase
from saadi.store.connection import dump, now

AMONG = "IN (SELECT value FROM json_each(?))"


class SampleRow(NamedTuple):
    """A sample without its settings: 10,000 of these are read in 20 ms, as full records in 150 ms."""

    id: int
    blob: str
    label_map_blob: str
    adapter_id: int | None
    seed: int
    purpose: str
    curation: Curation
    is_composite: int
    created_at: str


class ScoreRow(NamedTuple):
    sample_id: int
    kind: ModelKind
    dice: float
    per_class: str
    """JSON, as in the table: only who needs it pays for its reading."""


class CurationStore(StoreBase):
    """The part of the store behind Curate."""

    def sample_rows(self, project_id: int) -> list[SampleRow]:
        """By id."""
        found = self.db.execute(f"SELECT {', '.join(SampleRow._fields)} FROM samples WHERE project_id = ? ORDER BY id",
                                [project_id])
        return [SampleRow(*row) for row in found]

    def score_rows(self, project_id: int) -> list[ScoreRow]:
        """What the active selector and judge think; the judge's classes are left out ('{}')."""
        found = self.db.execute(
            "SELECT sample_id, models.kind, dice, CASE models.kind WHEN 'selector' THEN per_class ELSE '{}' END FROM scores "
            "JOIN models ON models.id = model_id WHERE models.project_id = ? AND models.is_active = 1", [project_id])
        return [ScoreRow(*row) for row in found]

    def need_own_samples(self, project_id: int, sample_ids: Collection[int]) -> None:
        """Raises: BadInputError: a sample belongs to another project, or does not exist."""
        found = self.db.execute(f"SELECT count(*) FROM samples WHERE project_id = ? AND id {AMONG}",
                                [project_id, dump(list(sample_ids))])
        if found.fetchone()[0] != len(set(sample_ids)):
            raise BadInputError("some of these images belong to another project or are gone; reload the page")

    def mark(self, project_id: int, sample_ids: Sequence[int], kind: MarkKind, *, is_set: bool, person: str,
             note: str | None = None) -> list[int]:
        """Put a person's mark on samples, or take it off; twice is once, so a resend does no harm.

        Args:
            note: Why, in the person's words; None leaves the one that is there. The trail does not repeat it.

        Returns:
            Those samples for which this changed something.

        Raises:
            BadInputError: See `need_own_samples`.
        """
        wanted = dump(list(sample_ids))
        with self.write() as db:
            self.need_own_samples(project_id, sample_ids)
            marked = {row[0] for row in db.execute("SELECT sample_id FROM marks WHERE kind = ? AND person = ? AND "
                                                   f"sample_id {AMONG}", [kind, person, wanted])}
            changed = sorted(set(sample_ids) - marked if is_set else marked)
            if is_set and note is not None:
                own = [kind, person, dump(sorted(marked)), note]
                changed += [row[0] for row in db.execute("SELECT sample_id FROM marks WHERE kind = ? AND person = ? AND "
                                                         f"sample_id {AMONG} AND note <> ?", own)]
                db.execute(f"UPDATE marks SET note = ? WHERE kind = ? AND person = ? AND sample_id {AMONG}", [note, *own[:3]])
            if not changed:
                return []
            if is_set:
                db.table("marks").insert_all({"project_id": project_id, "sample_id": sample_id, "kind": kind, "person": person,
                                              "note": note or "", "created_at": now()} for sample_id in set(changed) - marked)
            else:
                db.execute(f"DELETE FROM marks WHERE kind = ? AND person = ? AND sample_id {AMONG}",
                           [kind, person, dump(changed)])
            audit.append(db, actor=person, action=f"sample.{kind}" if is_set else f"sample.un{kind}",
                         subject=f"samples:{len(changed)}", details={"samples": changed})
        return changed

    def marks(self, project_id: int, *, sample_id: int | None = None) -> list[Mark]:
        """Of everybody, oldest first."""
        found = self.db.query("SELECT sample_id, kind, person, note, created_at FROM marks WHERE project_id = ? "
                              "AND (? IS NULL OR sample_id = ?) ORDER BY id", [project_id, sample_id, sample_id])
        return [Mark(**row) for row in found]

    def put_descriptors(self, model: str, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep the vectors of blobs under the name of what computed them; blobs and names never change their meaning, so one that
        is there stays."""
        with self.write() as db:
            # Not by sqlite-utils: it asks for the row's id afterwards, which a table WITHOUT ROWID does not have.
            db.conn.executemany("INSERT OR IGNORE INTO descriptors (blob, model, vector) VALUES (?, ?, ?)",
                                [(blob, model, np.asarray(vector, "<f4").tobytes()) for blob, vector in vectors.items()])

    def descriptors(self, model: str, blobs: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Blob -> (D,) float32, those that there are, in the order asked for."""
        wanted = list(dict.fromkeys(blobs))
        found = dict(self.db.execute(f"SELECT blob, vector FROM descriptors WHERE model = ? AND blob {AMONG}",
                                     [model, dump(wanted)]))
        return {blob: np.frombuffer(found[blob], "<f4") for blob in wanted if blob in found}

    def undescribed(self, model: str, blobs: Iterable[str]) -> list[str]:
        """Those blobs that have no vector of this name yet, in the order asked for, each once."""
        wanted = list(dict.fromkeys(blobs))
        known = {row[0] for row in self.db.execute(f"SELECT blob FROM descriptors WHERE model = ? AND blob {AMONG}",
                                                   [model, dump(wanted)])}
        return [blob for blob in wanted if blob not in known]

    def projection_input(self, project_id: int, model: str) -> str:
        """Hash of what a map of this project would lay out now."""
        digest = hashlib.sha256(model.encode())
        for table in ("samples", "images"):
            for row in self.db.execute(f"SELECT id, blob FROM {table} WHERE project_id = ? ORDER BY id", [project_id]):
                digest.update(f"{table}{row[0]}{row[1]}".encode())
        return digest.hexdigest()

    def set_projection(self, project_id: int, *, input: str, sample_ids: Sequence[int], image_ids: Sequence[int],
                       points: NDArray[np.float32]) -> None:
        """Replace the project's map; it is a view that can be made again, so the trail does not name it."""
        head = dump({"samples": list(sample_ids), "images": list(image_ids)}).encode()
        data = len(head).to_bytes(4, "little") + head + np.asarray(points, "<f4").tobytes()
        with self.write() as db:
            db.table("projections").insert({"project_id": project_id, "input": input, "points": data, "created_at": now()},
                                           replace=True)

    def projection(self, project_id: int) -> Projection | None:
        for row in self.db.query("SELECT input, points, created_at FROM projections WHERE project_id = ?", [project_id]):
            data = row["points"]
            end = 4 + int.from_bytes(data[:4], "little")
            head = json.loads(data[4:end])
            return Projection(input=row["input"], sample_ids=np.array(head["samples"], np.int64),
                              image_ids=np.array(head["images"], np.int64),
                              points=np.frombuffer(data[end:], "<f4").reshape(-1, 2), created_at=row["created_at"])
        return None
