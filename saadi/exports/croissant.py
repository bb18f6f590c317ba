"""Croissant metadata (mlcommons.org/croissant, 1.0, with the RAI vocabulary): a data set that describes itself to loaders.

Written by hand, since the library that reads it brings a graph database; the tests read it with that library (mlcroissant).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from saadi.config import VERSION
from saadi.exports.facts import Facts
from saadi.exports.manifest import ITEMS, MANIFEST, NOTICE, PROGRAM

NAME = "croissant.json"
CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column",
    "conformsTo": "dct:conformsTo", "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"}, "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/", "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract",
    "field": "cr:field", "fileProperty": "cr:fileProperty", "fileObject": "cr:fileObject", "fileSet": "cr:fileSet",
    "format": "cr:format", "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath",
    "key": "cr:key", "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path", "recordSet": "cr:recordSet",
    "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated", "replace": "cr:replace", "sc": "https://schema.org/",
    "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform",
}  # fmt: skip
COLUMNS = {"name": "sc:Text", "kind": "sc:Text", "split": "sc:Text", "group": "sc:Text", "image": "sc:Text",
           "image_sha256": "sc:Text", "height": "sc:Integer", "width": "sc:Integer"}  # fmt: skip
"""Of items.jsonl, which every item has."""


def croissant(facts: Facts, rows: Sequence[Mapping[str, Any]], *, items_sha256: str) -> bytes:
    """The content of croissant.json, the same for the same export; without a date, which would be another each time."""
    has_masks = any(row["mask"] for row in rows)
    columns = COLUMNS | ({"mask": "sc:Text"} if has_masks else {}) | ({"label": "sc:Text"} if all(row["label"] for row in rows)
                                                                     else {})  # fmt: skip
    content = {
        "@context": CONTEXT, "@type": "sc:Dataset", "conformsTo": ["http://mlcommons.org/croissant/1.0",
                                                                   "http://mlcommons.org/croissant/RAI/1.0"],
        "name": _plain(facts.project), "description": describe(facts), "version": "1.0.0", "isLiveDataset": False,
        "creator": {"@type": "sc:Organization", "name": f"{PROGRAM} {VERSION}"},
        "distribution": [
            {"@type": "cr:FileObject", "@id": ITEMS, "name": ITEMS, "contentUrl": ITEMS, "sha256": items_sha256,
             "encodingFormat": "application/jsonlines"},
            {"@type": "cr:FileSet", "@id": "images", "name": "images", "encodingFormat": "image/png",
             "includes": sorted({_glob(row["image"]) for row in rows})},
            *([{"@type": "cr:FileSet", "@id": "masks", "name": "masks", "encodingFormat": "image/png",
                "includes": sorted({_glob(row["mask"]) for row in rows if row["mask"]})}] if has_masks else []),
        ],
        "recordSet": [{"@type": "cr:RecordSet", "@id": "items", "name": "items", "description": f"One record an image; see "
                       f"{MANIFEST} for classes and counts.", "key": {"@id": "items/name"},
                       "field": [{"@type": "cr:Field", "@id": f"items/{name}", "name": name, "dataType": kind,
                                  "source": {"fileObject": {"@id": ITEMS}, "extract": {"column": name}}}
                                 for name, kind in columns.items()]}],
        "rai:dataCollection": "Real images were imported by the owner of the project; synthetic ones were made by a diffusion "
                              "model from label maps, composites by painting into real images.",
        "rai:dataAnnotationProtocol": "Label maps were imported, drawn or suggested; a synthetic image is labelled by the label "
                                      "map that it was made from.",
        "rai:annotationsPerItem": "1 label map" if facts.task == "segmentation" else "1 class",
        "rai:machineAnnotationTools": sorted(facts.versions),
        "rai:dataBiases": "Counts by class, patient and kind are in datasheet.md; synthetic images repeat what the generator has "
                          "learnt from few patients.",
        "rai:dataLimitations": f"{NOTICE}. Synthetic images may show what no patient has, and no measure proves that they reveal "
                               "nothing about one.",
        "rai:dataUseCases": "Training of segmentation and classification models in research; evaluation on real images only.",
        "rai:personalSensitiveInformation": personal(facts),
    }  # fmt: skip
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def describe(facts: Facts) -> str:
    """One paragraph."""
    parts = [f"{facts.num_of(kind)} {words}" for kind, words in
             (("real", "real"), ("synthetic", "synthetic"), ("composite", "partly synthetic")) if facts.num_of(kind)]  # fmt: skip
    return (f"{' and '.join(parts)} surgical images with {'label maps' if facts.task == 'segmentation' else 'classes'}: "
            f"{', '.join(facts.label_names)}. {NOTICE}.")  # fmt: skip


def personal(facts: Facts) -> str:
    """What of patients is in it."""
    found = [f"{facts.num_of('real')} real images of patients"] if facts.num_of("real") else []
    found += [f"{facts.num_of('composite')} images that hold pixels of real ones"] if facts.num_of("composite") else []
    made = "Synthetic images come from a model that has learnt from patients' images." if facts.num_of("synthetic") else ""
    return f"{'; '.join(found) + '. ' if found else ''}{made} No names, dates or original file names.".strip()


def _glob(path: str) -> str:
    return f"{path.rpartition('/')[0]}/*.png"


def _plain(name: str) -> str:
    """Letters, digits and signs that a file name may have, as the format asks for."""
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name).strip("-.") or "dataset"
