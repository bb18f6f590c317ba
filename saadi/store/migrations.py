"""The schema: numbered steps, never edited once released.

STRICT tables, CHECK and UNIQUE carry the rules, so that no caller can break them.
"""

from __future__ import annotations

from sqlite_utils import Database, Migrations

schema = Migrations("saadi")


def _run(db: Database, statements: str) -> None:
    # One by one: sqlite3's executescript would commit the migration's transaction.
    for statement in statements.split(";\n\n"):
        if statement.strip():
            db.execute(statement)


@schema()
def m001_library(db: Database) -> None:
    _run(db, """
CREATE TABLE projects (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 80),
    task TEXT NOT NULL CHECK (task IN ('segmentation', 'classification')), classes TEXT NOT NULL,
    resolution INTEGER NOT NULL CHECK (resolution BETWEEN 16 AND 1024), created_at TEXT NOT NULL
) STRICT;

CREATE TABLE images (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), blob TEXT NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, group_id TEXT NOT NULL,
    split TEXT NOT NULL CHECK (split IN ('train', 'val', 'test', 'none')), label TEXT, source_name TEXT NOT NULL,
    created_at TEXT NOT NULL, UNIQUE (project_id, blob)
) STRICT;

CREATE TABLE label_maps (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id),
    image_id INTEGER REFERENCES images(id), name TEXT NOT NULL, rev INTEGER NOT NULL, blob TEXT NOT NULL,
    author TEXT NOT NULL, origin TEXT NOT NULL CHECK (origin IN ('imported', 'drawn', 'edited', 'sampled')),
    updated_at TEXT NOT NULL
) STRICT;

CREATE INDEX label_maps_by_image ON label_maps (image_id);

CREATE TABLE label_map_revisions (
    id INTEGER PRIMARY KEY, label_map_id INTEGER NOT NULL REFERENCES label_maps(id), rev INTEGER NOT NULL,
    blob TEXT NOT NULL, author TEXT NOT NULL, request_id TEXT NOT NULL UNIQUE, created_at TEXT NOT NULL,
    UNIQUE (label_map_id, rev)
) STRICT;

CREATE TABLE audit (
    seq INTEGER PRIMARY KEY, created_at TEXT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
    subject TEXT NOT NULL, details TEXT NOT NULL, prev TEXT NOT NULL, hash TEXT NOT NULL UNIQUE
) STRICT;

CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows are never changed'); END;

CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit rows are never deleted'); END;

CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE seq = NEW.seq OR hash = NEW.hash)
BEGIN SELECT RAISE(ABORT, 'audit rows are never replaced'); END;
""")


@schema()
def m002_generation(db: Database) -> None:
    _run(db, """
CREATE TABLE models (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id),
    kind TEXT NOT NULL CHECK (kind IN ('engine', 'selector', 'judge')), architecture TEXT NOT NULL, file TEXT NOT NULL,
    metrics TEXT NOT NULL, parent_id INTEGER REFERENCES models(id), job_id INTEGER UNIQUE,
    is_active INTEGER NOT NULL CHECK (is_active IN (0, 1)), created_at TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX one_active_model ON models (project_id, kind) WHERE is_active = 1;

CREATE TABLE adapters (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id),
    model_id INTEGER NOT NULL REFERENCES models(id), parent_id INTEGER REFERENCES adapters(id), name TEXT NOT NULL,
    file TEXT NOT NULL, scale REAL NOT NULL, config TEXT NOT NULL, metrics TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('candidate', 'accepted', 'rejected', 'retired')),
    job_id INTEGER UNIQUE, created_at TEXT NOT NULL, UNIQUE (project_id, name)
) STRICT;

CREATE UNIQUE INDEX one_accepted_adapter ON adapters (project_id) WHERE state = 'accepted';

CREATE TABLE samples (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id),
    label_map_id INTEGER NOT NULL REFERENCES label_maps(id), label_map_rev INTEGER NOT NULL,
    label_map_blob TEXT NOT NULL, blob TEXT NOT NULL, seed INTEGER NOT NULL, engine TEXT NOT NULL,
    model_id INTEGER NOT NULL REFERENCES models(id), adapter_id INTEGER REFERENCES adapters(id),
    settings TEXT NOT NULL, purpose TEXT NOT NULL CHECK (purpose IN ('draw', 'pool')),
    parent_id INTEGER REFERENCES samples(id),
    curation TEXT NOT NULL CHECK (curation IN ('pending', 'accepted', 'rejected', 'quarantined')),
    recipe TEXT NOT NULL UNIQUE, created_at TEXT NOT NULL
) STRICT;

CREATE INDEX samples_by_label_map ON samples (project_id, label_map_blob);

CREATE TABLE scores (
    id INTEGER PRIMARY KEY, sample_id INTEGER NOT NULL REFERENCES samples(id),
    model_id INTEGER NOT NULL REFERENCES models(id), dice REAL NOT NULL, iou REAL NOT NULL, confidence REAL NOT NULL,
    per_class TEXT NOT NULL, prediction_blob TEXT NOT NULL, created_at TEXT NOT NULL, UNIQUE (sample_id, model_id)
) STRICT;
""")


@schema()
def m003_preferences(db: Database) -> None:
    _run(db, """
CREATE TABLE votes (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), request_id TEXT NOT NULL UNIQUE,
    left_id INTEGER NOT NULL REFERENCES samples(id), right_id INTEGER NOT NULL REFERENCES samples(id),
    label_map_blob TEXT NOT NULL,
    answer TEXT NOT NULL CHECK (answer IN ('left', 'right', 'both_good', 'both_bad', 'skip')),
    voter TEXT NOT NULL, response_ms INTEGER, supersedes INTEGER REFERENCES votes(id),
    is_undo INTEGER NOT NULL CHECK (is_undo IN (0, 1)), created_at TEXT NOT NULL, CHECK (left_id <> right_id)
) STRICT;

CREATE INDEX votes_by_superseded ON votes (supersedes);

CREATE TRIGGER votes_no_update BEFORE UPDATE ON votes BEGIN SELECT RAISE(ABORT, 'votes are append-only'); END;

CREATE TRIGGER votes_no_delete BEFORE DELETE ON votes BEGIN SELECT RAISE(ABORT, 'votes are append-only'); END;

CREATE TABLE pair_sets (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), sha256 TEXT NOT NULL,
    pairs TEXT NOT NULL, summary TEXT NOT NULL, created_at TEXT NOT NULL, UNIQUE (project_id, sha256)
) STRICT;

CREATE TABLE exports (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), format TEXT NOT NULL,
    path TEXT NOT NULL, manifest_sha256 TEXT NOT NULL, num_items INTEGER NOT NULL, job_id INTEGER UNIQUE,
    created_at TEXT NOT NULL
) STRICT;
""")


@schema()
def m004_jobs(db: Database) -> None:
    _run(db, """
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY, project_id INTEGER REFERENCES projects(id), kind TEXT NOT NULL, params TEXT NOT NULL,
    request_id TEXT NOT NULL UNIQUE, unique_key TEXT,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    priority INTEGER NOT NULL, attempt INTEGER NOT NULL, worker TEXT, step INTEGER NOT NULL, total INTEGER NOT NULL,
    message TEXT NOT NULL, result TEXT NOT NULL, error TEXT, traceback TEXT, eta_s REAL,
    cancel_requested INTEGER NOT NULL CHECK (cancel_requested IN (0, 1)), created_by TEXT NOT NULL,
    created_at TEXT NOT NULL, started_at TEXT, finished_at TEXT,
    CHECK ((state = 'running') = (worker IS NOT NULL))
) STRICT;

CREATE UNIQUE INDEX one_job_per_input ON jobs (unique_key)
WHERE unique_key IS NOT NULL AND state IN ('queued', 'running', 'done');

CREATE INDEX queued_jobs ON jobs (priority, id) WHERE state = 'queued';

CREATE UNIQUE INDEX one_running_job ON jobs (state) WHERE state = 'running';

CREATE TABLE job_metrics (
    job_id INTEGER NOT NULL REFERENCES jobs(id), name TEXT NOT NULL, step INTEGER NOT NULL, value REAL NOT NULL,
    PRIMARY KEY (job_id, name, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE job_images (
    job_id INTEGER NOT NULL REFERENCES jobs(id), name TEXT NOT NULL, step INTEGER NOT NULL, blob TEXT NOT NULL,
    PRIMARY KEY (job_id, name, step)
) STRICT, WITHOUT ROWID;
""")


@schema()
def m005_reviews(db: Database) -> None:
    _run(db, """
ALTER TABLE votes ADD COLUMN reasons TEXT NOT NULL DEFAULT '[]';

ALTER TABLE votes ADD COLUMN kind TEXT NOT NULL DEFAULT 'fresh' CHECK (kind IN ('fresh', 'shared', 'repeat', 'ruling'));

ALTER TABLE votes ADD COLUMN block TEXT;

CREATE TABLE thumbs (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), request_id TEXT NOT NULL UNIQUE,
    sample_id INTEGER NOT NULL REFERENCES samples(id), value TEXT NOT NULL CHECK (value IN ('up', 'down', 'none')),
    voter TEXT NOT NULL, created_at TEXT NOT NULL
) STRICT;

CREATE INDEX thumbs_by_sample ON thumbs (sample_id, voter, id);

CREATE TRIGGER thumbs_no_update BEFORE UPDATE ON thumbs BEGIN SELECT RAISE(ABORT, 'thumbs are append-only'); END;

CREATE TRIGGER thumbs_no_delete BEFORE DELETE ON thumbs BEGIN SELECT RAISE(ABORT, 'thumbs are append-only'); END;
""")


@schema()
def m006_lineage(db: Database) -> None:
    _run(db, """
ALTER TABLE samples ADD COLUMN source_blob TEXT;

ALTER TABLE samples ADD COLUMN is_composite INTEGER NOT NULL DEFAULT 0 CHECK (is_composite IN (0, 1));

CREATE TABLE marks (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id),
    sample_id INTEGER NOT NULL REFERENCES samples(id), kind TEXT NOT NULL CHECK (kind IN ('favourite', 'flag')),
    person TEXT NOT NULL, note TEXT NOT NULL, created_at TEXT NOT NULL, UNIQUE (sample_id, kind, person)
) STRICT;
""")


@schema()
def m007_descriptors(db: Database) -> None:
    _run(db, """
CREATE TABLE descriptors (
    blob TEXT NOT NULL, model TEXT NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (blob, model)
) STRICT, WITHOUT ROWID;

CREATE TABLE projections (
    project_id INTEGER PRIMARY KEY REFERENCES projects(id), input TEXT NOT NULL, points BLOB NOT NULL, created_at TEXT NOT NULL
) STRICT;
""")


@schema()
def m008_trials(db: Database) -> None:
    _run(db, """
CREATE TABLE trials (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), request_id TEXT NOT NULL UNIQUE,
    adapter_id INTEGER NOT NULL REFERENCES adapters(id), label_map_blob TEXT NOT NULL, old_blob TEXT NOT NULL,
    new_blob TEXT NOT NULL, new_is_left INTEGER NOT NULL CHECK (new_is_left IN (0, 1)),
    answer TEXT NOT NULL CHECK (answer IN ('left', 'right', 'both_good', 'both_bad', 'skip')),
    voter TEXT NOT NULL, response_ms INTEGER, created_at TEXT NOT NULL
) STRICT;

CREATE TRIGGER trials_no_update BEFORE UPDATE ON trials BEGIN SELECT RAISE(ABORT, 'trials are append-only'); END;

CREATE TRIGGER trials_no_delete BEFORE DELETE ON trials BEGIN SELECT RAISE(ABORT, 'trials are append-only'); END;
""")


@schema()
def m009_underlay(db: Database) -> None:
    _run(db, "ALTER TABLE label_maps ADD COLUMN underlay_id INTEGER REFERENCES images(id)")


@schema()
def m010_singles(db: Database) -> None:
    _run(db, "ALTER TABLE pair_sets ADD COLUMN singles TEXT NOT NULL DEFAULT '[]'")


@schema()
def m011_samples_by_blob(db: Database) -> None:
    _run(db, "CREATE INDEX samples_by_blob ON samples (project_id, blob)")


@schema()
def m012_mask_models(db: Database) -> None:
    _run(db, """
CREATE TABLE mask_models (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), architecture TEXT NOT NULL, file TEXT NOT NULL,
    bases TEXT NOT NULL, metrics TEXT NOT NULL, job_id INTEGER UNIQUE REFERENCES jobs(id), created_at TEXT NOT NULL
) STRICT
""")


@schema()
def m013_noise_shifts(db: Database) -> None:
    _run(db, """
CREATE TABLE noise_shifts (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), model_id INTEGER NOT NULL REFERENCES models(id),
    adapter_id INTEGER REFERENCES adapters(id), selector_id INTEGER NOT NULL REFERENCES models(id), architecture TEXT NOT NULL,
    file TEXT NOT NULL, metrics TEXT NOT NULL, job_id INTEGER UNIQUE REFERENCES jobs(id), created_at TEXT NOT NULL
) STRICT
""")


@schema()
def m014_releases(db: Database) -> None:
    _run(db, """
CREATE TABLE export_items (
    export_id INTEGER NOT NULL REFERENCES exports(id), name TEXT NOT NULL, kind TEXT NOT NULL, blob TEXT NOT NULL,
    PRIMARY KEY (export_id, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE verifiers (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), input TEXT NOT NULL, file TEXT NOT NULL,
    metrics TEXT NOT NULL, created_at TEXT NOT NULL, UNIQUE (project_id, input)
) STRICT;

CREATE TABLE disclosures (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), export_id INTEGER REFERENCES exports(id),
    findings TEXT NOT NULL, job_id INTEGER UNIQUE REFERENCES jobs(id), created_at TEXT NOT NULL
) STRICT;

CREATE TABLE releases (
    id INTEGER PRIMARY KEY, export_id INTEGER NOT NULL UNIQUE REFERENCES exports(id),
    disclosure_id INTEGER REFERENCES disclosures(id), person TEXT NOT NULL, reason TEXT NOT NULL, created_at TEXT NOT NULL
) STRICT;

CREATE TRIGGER releases_no_update BEFORE UPDATE ON releases BEGIN SELECT RAISE(ABORT, 'releases are append-only'); END;

CREATE TRIGGER releases_no_delete BEFORE DELETE ON releases BEGIN SELECT RAISE(ABORT, 'releases are append-only'); END;
""")


@schema()
def m015_texts_and_withdrawals(db: Database) -> None:
    _run(db, """
CREATE TABLE texts (
    blob TEXT PRIMARY KEY, detector TEXT NOT NULL, boxes TEXT NOT NULL, looked_at TEXT NOT NULL, cleared_by TEXT,
    cleared_at TEXT, CHECK ((cleared_by IS NULL) = (cleared_at IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE withdrawals (
    id INTEGER PRIMARY KEY, project_id INTEGER NOT NULL REFERENCES projects(id), group_id TEXT NOT NULL, person TEXT NOT NULL,
    reason TEXT NOT NULL, created_at TEXT NOT NULL, revoked_by TEXT, revoked_reason TEXT, revoked_at TEXT,
    CHECK ((revoked_by IS NULL) = (revoked_at IS NULL) AND (revoked_by IS NULL) = (revoked_reason IS NULL))
) STRICT;

CREATE UNIQUE INDEX one_standing_withdrawal ON withdrawals (project_id, group_id) WHERE revoked_at IS NULL;

ALTER TABLE images ADD COLUMN withdrawn_from TEXT CHECK (withdrawn_from IN ('train', 'val', 'test', 'none'))
""")
