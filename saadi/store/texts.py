"""Where text was found in pictures, and who said that it is no personal data. The text itself is kept nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from saadi.errors import NotFoundError
from saadi.store import audit
from saadi.store.connection import dump, now
from saadi.store.releases import ReleaseStore, verdict_of

AMONG = "IN (SELECT value FROM json_each(?))"


class TextLook(NamedTuple):
    """A picture in which text was found."""

    blob: str
    boxes: tuple[tuple[int, int, int, int], ...]
    """x, y, width, height in pixels of the picture."""
    cleared_by: str | None
    """Who said that it is no personal data; None = nobody yet."""
    cleared_at: str | None


class TextStore(ReleaseStore):
    """The part of the store that knows which pictures show text."""

    def texts_unlooked(self, blobs: Iterable[str], *, detector: str) -> list[str]:
        """Those pictures at which this detector has not looked, in the order asked for, each once."""
        wanted = list(dict.fromkeys(blobs))
        known = {row[0] for row in self.db.execute(f"SELECT blob FROM texts WHERE detector = ? AND blob {AMONG}",
                                                   [detector, dump(wanted)])}  # fmt: skip
        return [blob for blob in wanted if blob not in known]

    def add_texts(self, found: Mapping[str, Sequence[Sequence[int]]], *, detector: str) -> None:
        """Blob -> boxes, none where there is no text. What somebody has cleared stays cleared while the boxes are the same."""
        rows = [(blob, detector, dump([list(map(int, box)) for box in boxes]), now()) for blob, boxes in found.items()]
        with self.write() as db:
            db.conn.executemany(
                "INSERT INTO texts (blob, detector, boxes, looked_at) VALUES (?, ?, ?, ?) ON CONFLICT (blob) DO UPDATE SET "
                "detector = excluded.detector, looked_at = excluded.looked_at, boxes = excluded.boxes, "
                "cleared_by = CASE WHEN boxes = excluded.boxes THEN cleared_by END, "
                "cleared_at = CASE WHEN boxes = excluded.boxes THEN cleared_at END", rows)  # fmt: skip

    def texts(self, blobs: Iterable[str]) -> dict[str, TextLook]:
        """Of these pictures the ones that show text."""
        found = self.db.query("SELECT blob, boxes, cleared_by, cleared_at FROM texts WHERE boxes <> '[]' AND "
                              f"blob {AMONG} ORDER BY blob", [dump(list(dict.fromkeys(blobs)))])  # fmt: skip
        return {row["blob"]: TextLook(row["blob"], tuple((box[0], box[1], box[2], box[3]) for box in json.loads(row["boxes"])),
                                      row["cleared_by"], row["cleared_at"]) for row in found}  # fmt: skip

    def held_texts(self, blobs: Iterable[str]) -> set[str]:
        """Of these pictures the ones that show text which nobody has called harmless."""
        return {blob for blob, look in self.texts(blobs).items() if look.cleared_by is None}

    def clear_texts(self, blobs: Sequence[str], *, person: str, is_harmless: bool = True) -> None:
        """Say of pictures that their text is no personal data, or take that back. Exports that wait for a signature get their
        newest audit once more, with what is left; one that was signed keeps the audit that was read.

        Raises:
            NotFoundError: No text was found in one of them.
        """
        with self.write() as db:
            if missing := set(blobs) - self.texts(blobs).keys():
                raise NotFoundError(f"no text was found in the picture {min(missing)[:12]}; reload the page")
            db.execute(f"UPDATE texts SET cleared_by = ?, cleared_at = ? WHERE blob {AMONG}",
                       [person if is_harmless else None, now() if is_harmless else None, dump(list(blobs))])  # fmt: skip
            audit.append(db, actor=person, action="text.clear" if is_harmless else "text.hold", subject=f"images:{len(blobs)}",
                         details={"blobs": sorted(blobs)})  # fmt: skip
            self._audited_again(set(blobs), person)

    def _audited_again(self, blobs: set[str], person: str) -> None:
        signed = {row["export_id"] for row in self.db.query("SELECT export_id FROM releases")}
        newest = self.db.query("SELECT max(id) AS id, export_id, project_id FROM disclosures WHERE export_id IS NOT NULL "
                               "GROUP BY export_id ORDER BY id")  # fmt: skip
        for row in list(newest):
            findings = self.disclosure(row["id"]).findings
            shown = {one["blob"] for one in findings.get("texts", {}).get("found", ())}
            if row["export_id"] in signed or not shown & blobs:
                continue
            self.add_disclosure(row["project_id"], export_id=row["export_id"], actor=person, findings=with_texts(
                findings | {"repeats": row["id"]}, findings["texts"], held=self.held_texts(shown)))  # fmt: skip


def with_texts(findings: Mapping[str, Any], texts: Mapping[str, Any], *, held: set[str]) -> dict[str, Any]:
    """Findings of an audit with its word on text, in place of what it said on text before.

    Args:
        texts: num_looked (None = could not look) and found: blob, name, boxes and size (height, width) of each image with text.
        held: Blobs of those that nobody has called harmless.
    """
    before, left = findings.get("texts", {}), len({one["blob"] for one in texts["found"]} & held)
    reasons = [reason for reason in findings["reasons"] if reason != before.get("reason")]
    reason = f"{left} image{'' if left == 1 else 's'} show{'s' if left == 1 else ''} text that nobody has called harmless"
    if left:
        reasons.append(reason)
    told = {"num_looked": texts["num_looked"], "found": list(texts["found"]), "held": sorted(held),
            "reason": reason if left else None}  # fmt: skip
    return {**findings, "reasons": reasons, "texts": told, "verdict": verdict_of(reasons, findings["open_questions"])}
