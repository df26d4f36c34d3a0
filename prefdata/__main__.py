"""Entry point of `python -m prefdata`, the same as the command `prefdata`."""

from prefdata.cli import main

main(prog_name="prefdata")
