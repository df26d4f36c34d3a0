"""`python -m prefdata` is the command `prefdata`."""

from prefdata.cli import main

main(prog_name="prefdata")
