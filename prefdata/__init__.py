"""Raw preference files in, token shards out."""
