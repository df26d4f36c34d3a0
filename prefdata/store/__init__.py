"""Files of a build on disk: token shards, the manifest with their hashes, and atomic writes."""
