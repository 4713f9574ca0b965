"""The transactional tool of docs/tools.md, with its table, as both stand there."""

import re
from pathlib import Path

from tests.support.system import running_system

_DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "tools.md"


async def test_tool_of_the_documentation_writes_into_a_table_of_its_own(tmp_path: Path) -> None:
    """For each workspace by itself; what the tool is told is what is there."""
    text = _DOCUMENTATION.read_text("utf-8")
    [table] = re.findall(r"```sql\n(create table visits.*?)```", text, re.DOTALL)
    [module] = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "note_visit" in code]
    (tmp_path / "documented_tools.py").write_text(module)
    async with running_system() as system:
        for statement in table.split(";")[:-1]:
            await system.rows(statement)
        api = await system.api()
        await system.worker(TOOLS_MODULE="documented_tools", PYTHONPATH=str(tmp_path))
        for _ in range(2):
            someone = await system.client(api)
            for number in (1, 2):
                run = await someone.start("go", provider="echo", model='echo?tool=note_visit&args={"place":"Ely"}')
                events = await someone.events(run)
                [result] = [event["result"] for event in events if event["type"] == "tool_result"]
                assert result == f"Noted, as visit number {number}."
        assert len(await system.rows("select from visits")) == 4
