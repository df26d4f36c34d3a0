"""What lies on disk: token shards, the manifest that seals them, and how both get there whole."""
