"""Versions as they were: what each has on the wire, and what it asks of the schema. While a release rolls, the version
before it reads what the new one writes, and the other way round.

`python -m tests.frozen.freeze tests/frozen/v0_2` makes the folder of the next one; a released folder never changes.
"""

from pathlib import Path

NEWEST = Path(__file__).parent / "v0_1"
"""The version whose processes may still be running beside today's."""
