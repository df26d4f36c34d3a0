"""The Hub: repos, their files, and sets named as inputs."""
