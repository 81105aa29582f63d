//! The tables of the catalog.

/// The form of the tables, kept in `user_version`.
pub(super) const VERSION: i64 = 1;

/// Makes them in an empty file.
pub(super) const TABLES: &str = "
CREATE TABLE layers (
    diff_id TEXT PRIMARY KEY,
    short TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    tar_size INTEGER NOT NULL,
    has_root INTEGER NOT NULL,
    created INTEGER NOT NULL
) STRICT;
CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    diff_id TEXT NOT NULL REFERENCES layers ON DELETE CASCADE,
    size INTEGER NOT NULL,
    compression TEXT NOT NULL,
    stored_size INTEGER NOT NULL
) STRICT;
CREATE INDEX blobs_of_layer ON blobs (diff_id);
CREATE TABLE images (
    id TEXT PRIMARY KEY,
    config BLOB NOT NULL,
    created INTEGER,
    loaded INTEGER NOT NULL
) STRICT;
CREATE TABLE image_layers (
    image TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    position INTEGER NOT NULL,
    diff_id TEXT NOT NULL REFERENCES layers,
    PRIMARY KEY (image, position)
) STRICT;
CREATE INDEX images_of_layer ON image_layers (diff_id);
CREATE TABLE manifests (
    digest TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    media_type TEXT NOT NULL,
    document BLOB NOT NULL,
    position INTEGER NOT NULL
) STRICT;
CREATE INDEX manifests_of_image ON manifests (image);
CREATE TABLE manifest_blobs (
    manifest TEXT NOT NULL REFERENCES manifests ON DELETE CASCADE,
    position INTEGER NOT NULL,
    digest TEXT NOT NULL REFERENCES blobs,
    PRIMARY KEY (manifest, position)
) STRICT;
CREATE INDEX manifests_of_blob ON manifest_blobs (digest);
CREATE TABLE names (
    repository TEXT NOT NULL,
    tag TEXT NOT NULL,
    manifest TEXT NOT NULL REFERENCES manifests,
    PRIMARY KEY (repository, tag)
) STRICT;
CREATE INDEX names_of_manifest ON names (manifest);
CREATE TABLE containers (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    image TEXT NOT NULL,
    image_name TEXT NOT NULL,
    command TEXT NOT NULL,
    created INTEGER NOT NULL,
    driver TEXT NOT NULL,
    temporary INTEGER NOT NULL,
    mountpoint BLOB
) STRICT;
CREATE TABLE container_layers (
    container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
    position INTEGER NOT NULL,
    diff_id TEXT NOT NULL REFERENCES layers,
    PRIMARY KEY (container, position)
) STRICT;
CREATE INDEX containers_of_layer ON container_layers (diff_id);
CREATE TABLE volumes (
    name TEXT PRIMARY KEY,
    created INTEGER NOT NULL,
    anonymous INTEGER NOT NULL
) STRICT;
CREATE TABLE doomed_volumes (name TEXT PRIMARY KEY) STRICT;
CREATE TABLE binds (
    container TEXT NOT NULL REFERENCES containers ON DELETE CASCADE,
    position INTEGER NOT NULL,
    volume TEXT REFERENCES volumes,
    source BLOB,
    target BLOB NOT NULL,
    read_only INTEGER NOT NULL,
    PRIMARY KEY (container, position),
    CHECK ((volume IS NULL) <> (source IS NULL))
) STRICT;
CREATE INDEX binds_of_volume ON binds (volume);
";
