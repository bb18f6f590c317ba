"""Projects, real images and label maps with their revisions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

from saadi.errors import BadInputError, ConflictError, NotFoundError
from saadi.masks import whole
from saadi.records import LabelClass, LabelMap, LabelMapRecord, Project, RealImage, Split, Task
from saadi.store import audit
from saadi.store.base import StoreBase
from saadi.store.connection import dump, new_id, now

IMAGE_SQL = "SELECT images.*, (SELECT max(id) FROM label_maps WHERE image_id = images.id) AS label_map_id FROM images"

class LibraryStore(StoreBase):
    """The part of the store that holds what people bring and draw."""

    def create_project(self, name: str, *, task: Task, classes: Sequence[LabelClass], resolution: int, actor: str) -> Project:
        """Raises: BadInputError: the name is taken, or class indices are not 0, 1, 2, ..."""
        if [label.index for label in classes] != list(range(len(classes))) or not 2 <= len(classes) <= 100:
            raise BadInputError(f"a project needs 2 to 100 classes numbered from 0; got {[c.index for c in classes]}")
        if not 1 <= len(name.strip()) <= len(name) <= 80:
            raise BadInputError(f"a project's name has 1 to 80 characters; got {len(name)}")
        if not 16 <= resolution <= 1024:
            raise BadInputError(f"a project's resolution is 16 to 1024 pixels; got {resolution}")
        with self.write() as db:
            if db.execute("SELECT 1 FROM projects WHERE name = ?", [name]).fetchone():
                raise BadInputError(f"there is already a project called {name!r}; choose another name")
            row = {"name": name, "task": task, "resolution": resolution, "created_at": now(),
                   "classes": dump([{"index": c.index, "name": c.name, "color": c.color} for c in classes])}
            project_id = db.table("projects").insert(row).last_pk
            audit.append(db, actor=actor, action="project.create", subject=f"project:{project_id}", details={"task": task})
        return self.project(name)

    def projects(self) -> list[Project]:
        return [_project(row) for row in self.db.query("SELECT * FROM projects ORDER BY id")]

    def project(self, name_or_id: str | int) -> Project:
        """Raises: NotFoundError: with the names that exist."""
        column = "id" if isinstance(name_or_id, int) else "name"
        for row in self.db.query(f"SELECT * FROM projects WHERE {column} = ?", [name_or_id]):
            return _project(row)
        names = ", ".join(project.name for project in self.projects()) or "none yet"
        raise NotFoundError(f"no project {name_or_id!r}; there are: {names}")

    def add_image(self, project_id: int, *, blob: str, size: tuple[int, int], group_id: str, split: Split,
                  label: str | None = None, source_name: str, label_map_blob: str | None, actor: str,
                  origin: Literal["imported", "drawn", "edited", "sampled"] = "imported") -> RealImage | None:
        """Add a real image, with its label map where there is one; blobs must be stored already.

        Args:
            size: (width, height) in pixels.

        Returns:
            The image, or None when the project has these pixels already (nothing is changed then).
        """
        with self.write() as db:
            if db.execute("SELECT 1 FROM images WHERE project_id = ? AND blob = ?", [project_id, blob]).fetchone():
                return None
            self.need_blobs(blob, label_map_blob)
            # A patient may withdraw while an import of theirs runs.
            is_away = db.execute("SELECT 1 FROM withdrawals WHERE project_id = ? AND group_id = ? AND revoked_at IS NULL",
                                 [project_id, group_id]).fetchone() is not None  # fmt: skip
            row = {"project_id": project_id, "blob": blob, "width": size[0], "height": size[1], "group_id": group_id,
                   "split": "none" if is_away else split, "withdrawn_from": split if is_away else None, "label": label,
                   "source_name": source_name, "created_at": now()}
            image_id = new_id(db.table("images").insert(row))
            if label_map_blob is not None:
                self._insert_label_map(project_id, image_id=image_id, name=source_name, blob=label_map_blob,
                                       author=actor, origin=origin, request_id=f"import-{image_id}")
            audit.append(db, actor=actor, action="image.add", subject=f"image:{image_id}", details={"blob": blob, "split": split})
        return self.image(image_id)

    def image(self, image_id: int) -> RealImage:
        for row in self.db.query(f"{IMAGE_SQL} WHERE id = ?", [image_id]):
            return RealImage(**row)
        raise NotFoundError(f"no image {image_id}; reload the page")

    def images(self, project_id: int, *, splits: Sequence[Split] | None = None, limit: int = -1,
               offset: int = 0) -> list[RealImage]:
        """By id; `splits` None = all."""
        wanted = list(splits) if splits is not None else ["train", "val", "test", "none"]
        marks = ",".join("?" * len(wanted))
        found = self.db.query(f"{IMAGE_SQL} WHERE project_id = ? AND split IN ({marks}) ORDER BY id LIMIT ? OFFSET ?",
                              [project_id, *wanted, limit, offset])
        return [RealImage(**row) for row in found]

    def count_images(self, project_id: int) -> dict[str, int]:
        """Split -> number of images."""
        sql = "SELECT split, count(*) FROM images WHERE project_id = ? GROUP BY split"
        return dict(self.db.execute(sql, [project_id]).fetchall())

    def count_labelled(self, project_id: int) -> dict[str, int]:
        """Split (train, val, test) -> number of real images that say what is in them: a label map, in classification a class."""
        task = self.project(project_id).task
        has = ("label IS NOT NULL" if task == "classification" else
               "EXISTS (SELECT 1 FROM label_maps WHERE label_maps.image_id = images.id)")  # fmt: skip
        sql = f"SELECT split, count(*) FROM images WHERE project_id = ? AND {has} GROUP BY split"
        found = dict(self.db.execute(sql, [project_id]).fetchall())
        return {split: found.get(split, 0) for split in ("train", "val", "test")}

    def count_classes(self, project_id: int, *, splits: Sequence[Split] | None = None) -> dict[str, int]:
        """Class -> number of images in a classification project, most frequent first; `splits` None = all."""
        found = Counter(image.label for image in self.images(project_id, splits=splits) if image.label is not None)
        return dict(found.most_common())

    def class_map(self, project: Project, label: str) -> str:
        """The blob of the label map that asks for one class of the whole image; the same one each time."""
        return self.blobs.put_label_map(whole(project.class_names.index(label), side=project.resolution))

    def complete_class_maps(self, project_id: int, *, actor: str) -> int:
        """Give each labelled image of a classification project the label map of its class, where it lacks one (imports of earlier
        programs do); returns how many. Does nothing in a segmentation project."""
        project = self.project(project_id)
        if project.task != "classification":
            return 0
        known = set(project.class_names)
        lacking = [image for image in self.images(project_id) if image.label_map_id is None and image.label in known]
        blobs = {label: self.class_map(project, label) for label in dict.fromkeys(str(image.label) for image in lacking)}
        with self.write():
            for image in lacking:
                self.add_label_map(project_id, blob=blobs[str(image.label)], name=image.source_name, author=actor,
                                   request_id=f"import-{image.id}", origin="imported", image_id=image.id)
        return len(lacking)

    def add_label_map(self, project_id: int, *, blob: str, name: str, author: str, request_id: str,
                      origin: Literal["imported", "drawn", "edited", "sampled"], image_id: int | None = None,
                      underlay_id: int | None = None) -> LabelMapRecord:
        """Add a label map (revision 1). A repeated `request_id` gives the first answer again."""
        with self.write() as db:
            if (known := self._revision_by_request(request_id)) is not None:
                return known
            self.need_blobs(blob)
            label_map_id = self._insert_label_map(project_id, image_id=image_id, name=name, blob=blob, author=author,
                                                  origin=origin, request_id=request_id, underlay_id=underlay_id)
            audit.append(db, actor=author, action="label_map.add", subject=f"label_map:{label_map_id}", details={"blob": blob})
        return self.label_map(label_map_id)

    def save_label_map(self, label_map_id: int, *, blob: str, rev: int, author: str, request_id: str) -> LabelMapRecord:
        """Store a new revision on top of revision `rev`. A repeated `request_id` gives the first answer again, with the
        revision that it made: a newer one would let the sender overwrite what somebody saved in between.

        Raises:
            ConflictError: Somebody saved on top of `rev` first; nothing was overwritten, both versions are kept.
        """
        with self.write() as db:
            if (known := self._revision_by_request(request_id)) is not None:
                if known.id != label_map_id:
                    raise BadInputError(f"this save was already used for label map {known.id}; reload the page and draw again")
                return known
            self.need_blobs(blob)
            at = now()
            changed = db.execute("UPDATE label_maps SET rev = rev + 1, blob = ?, author = ?, updated_at = ?, origin = "
                                 "CASE origin WHEN 'imported' THEN 'edited' ELSE origin END WHERE id = ? AND rev = ?",
                                 [blob, author, at, label_map_id, rev]).rowcount
            if not changed:
                newest = self.label_map(label_map_id)
                raise ConflictError(f"{newest.author} saved revision {newest.rev} while you worked on revision {rev}; "
                                    "look at theirs, or keep yours as a copy")
            db.table("label_map_revisions").insert({"label_map_id": label_map_id, "rev": rev + 1, "blob": blob,
                                                    "author": author, "request_id": request_id, "created_at": at})
            audit.append(db, actor=author, action="label_map.save", subject=f"label_map:{label_map_id}",
                         details={"rev": rev + 1, "blob": blob})
        return self.label_map(label_map_id)

    def label_map(self, label_map_id: int) -> LabelMapRecord:
        for row in self.db.query("SELECT * FROM label_maps WHERE id = ?", [label_map_id]):
            return LabelMapRecord(**row)
        raise NotFoundError(f"no label map {label_map_id}; reload the page")

    def label_maps(self, project_id: int, *, splits: Sequence[Split] | None = None) -> list[LabelMapRecord]:
        """By id. `splits` keeps label maps of real images in these splits; None = all, free drawings included."""
        sql, values = "SELECT label_maps.* FROM label_maps", [project_id]
        if splits is not None:
            marks = ",".join("?" * len(splits))
            found = self.db.query(f"{sql} JOIN images ON images.id = image_id WHERE label_maps.project_id = ? "
                                  f"AND split IN ({marks}) ORDER BY label_maps.id", [*values, *splits])
        else:
            found = self.db.query(f"{sql} WHERE project_id = ? ORDER BY id", values)
        return [LabelMapRecord(**row) for row in found]

    def held_out_label_maps(self, project_id: int) -> tuple[set[int], set[str]]:
        """What may never train: ids of the label maps of validation and test images and of patients who have withdrawn, of
        drawings over them, and the blobs of all their revisions; in classification no blobs, since a class is nobody's."""
        ids = [row[0] for row in self.db.execute(
            "SELECT m.id FROM label_maps AS m JOIN images AS i ON i.id = coalesce(m.image_id, m.underlay_id) "
            "WHERE m.project_id = ? AND (i.split IN ('val', 'test') OR i.withdrawn_from IN ('val', 'test') OR "
            "(i.withdrawn_from IS NOT NULL AND (SELECT task FROM projects WHERE id = i.project_id) = 'segmentation'))",
            [project_id])]
        if self.project(project_id).task == "classification":
            return set(ids), set()
        blobs = self.db.execute("SELECT DISTINCT blob FROM label_map_revisions WHERE label_map_id IN "
                                "(SELECT value FROM json_each(?))", [dump(ids)])
        return set(ids), {row[0] for row in blobs}

    def sample_groups(self, project_id: int, sample_ids: Iterable[int] | None = None) -> dict[int, str]:
        """Sample id -> the patient whose pixels or mask it was made from: of the real picture of which a part was kept (also
        through other samples), else of the image that its label map belongs to, was drawn over, or has equal pixels with. Samples
        of free drawings are left out, and of drawings that equal the masks of several patients. In classification none has one: a
        class is nobody's.

        Args:
            sample_ids: These alone; None = all of the project.
        """
        if self.project(project_id).task == "classification":
            return {}
        values = {"p": project_id, "ids": None if sample_ids is None else dump(list(sample_ids))}
        found = dict(self.db.execute(
            "SELECT s.id, coalesce(own.group_id, same.group_id) AS found FROM samples AS s "
            "JOIN label_maps AS m ON m.id = s.label_map_id "
            "LEFT JOIN images AS own ON own.id = coalesce(m.image_id, m.underlay_id) "
            "LEFT JOIN (SELECT r.blob, min(i.group_id) AS group_id FROM label_map_revisions AS r "
            "JOIN label_maps AS l ON l.id = r.label_map_id JOIN images AS i ON i.id = l.image_id WHERE l.project_id = :p "
            "GROUP BY r.blob HAVING count(DISTINCT i.group_id) = 1) AS same ON same.blob = s.label_map_blob "
            "WHERE s.project_id = :p AND (:ids IS NULL OR s.id IN (SELECT value FROM json_each(:ids))) AND found IS NOT NULL",
            values))
        # CROSS JOIN fixes the order: SQLite's own choice reads all samples again for every step up.
        found |= dict(self.db.execute(
            "WITH RECURSIVE up (id, source) AS (SELECT id, source_blob FROM samples WHERE project_id = :p AND "
            "source_blob NOT NULL AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids))) "
            "UNION SELECT up.id, before.source_blob FROM up CROSS JOIN samples AS before "
            "ON before.project_id = :p AND before.blob = up.source AND before.source_blob NOT NULL) "
            "SELECT up.id, i.group_id FROM up CROSS JOIN images AS i ON i.project_id = :p AND i.blob = up.source", values))
        return found

    def label_map_history(self, label_map_id: int) -> list[dict[str, Any]]:
        """Revisions, oldest first: rev, blob, author, created_at."""
        return list(self.db.query("SELECT rev, blob, author, created_at FROM label_map_revisions "
                                  "WHERE label_map_id = ? ORDER BY rev", [label_map_id]))

    def drop_unnamed_blobs(self, blobs: Iterable[str]) -> int:
        """Remove those of the given pixels that no row names, for an import that did not come to its rows; returns how many."""
        with self.write():  # nobody can add a row meanwhile
            unnamed = set(blobs) - self.referenced_blobs()
            for blob in unnamed:
                self.blobs.path(blob).unlink(missing_ok=True)
        return len(unnamed)

    def label_map_pixels(self, blob: str) -> LabelMap:
        return self.blobs.label_map(blob)

    def _revision_by_request(self, request_id: str) -> LabelMapRecord | None:
        for row in self.db.query("SELECT * FROM label_map_revisions WHERE request_id = ?", [request_id]):
            return replace(self.label_map(row["label_map_id"]), rev=row["rev"], blob=row["blob"], author=row["author"],
                           updated_at=row["created_at"])
        return None

    def _insert_label_map(self, project_id: int, *, image_id: int | None, name: str, blob: str, author: str, origin: str,
                          request_id: str, underlay_id: int | None = None) -> int:
        at = now()
        label_map_id = new_id(self.db.table("label_maps").insert({
            "project_id": project_id, "image_id": image_id, "name": name, "rev": 1, "blob": blob, "author": author,
            "origin": origin, "updated_at": at, "underlay_id": underlay_id}))
        self.db.table("label_map_revisions").insert({
            "label_map_id": label_map_id, "rev": 1, "blob": blob, "author": author, "request_id": request_id, "created_at": at})
        return label_map_id


def _project(row: dict[str, Any]) -> Project:
    classes = tuple(LabelClass(**item) for item in json.loads(row["classes"]))
    return Project(**(row | {"classes": classes}))
