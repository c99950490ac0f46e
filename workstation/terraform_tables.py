"""Writes the inputs and outputs of the Terraform roots as tables into ``terraform/README.md``.

Run by ``make tables``. It reads `variables.tf` and `outputs.tf` in the form that ``terraform fmt``
gives them and that a test checks, so it needs neither Terraform nor a parser of HCL.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from lab.settings import ROOT

README = ROOT / "terraform" / "README.md"
ROOTS = ("foundation", "lab")
BEGIN = "<!-- tables: `make tables` writes what follows, from variables.tf and outputs.tf -->"
END = "<!-- tables end -->"

_BLOCK = re.compile(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)
#: An attribute of a block, with all lines of a value in brackets.
_ATTRIBUTE = re.compile(r"^  (\w+) += (.+(?:\n(?:    .*|  [)\]}].*))*)", re.MULTILINE)


class Block(NamedTuple):
    """A variable or an output, with its attributes as they are written."""

    kind: str
    name: str
    attributes: dict[str, str]


def read_blocks(text: str) -> list[Block]:
    """The variables and outputs of a Terraform file, in its order."""
    return [
        Block(kind, name, {m[1]: _one_line(m[2]) for m in _ATTRIBUTE.finditer(body)})
        for kind, name, body in _BLOCK.findall(text)
    ]


def root_tables(folder: Path) -> str:
    """The two tables of one root, in Markdown."""
    inputs = read_blocks((folder / "variables.tf").read_text(encoding="utf-8"))
    outputs = read_blocks((folder / "outputs.tf").read_text(encoding="utf-8"))
    lines = [
        f"### Inputs of `{folder.name}/`",
        "",
        "| Name | Type | Default | Description |",
        "|---|---|---|---|",
        *(input_row(block) for block in inputs),
        "",
        f"### Outputs of `{folder.name}/`",
        "",
        "| Name | Description |",
        "|---|---|",
        *(f"| `{block.name}` | {_description(block)} |" for block in outputs),
    ]
    return "\n".join(lines)


def with_tables(readme: str) -> str:
    """``readme`` with the present tables between its markers. Raises ValueError without them."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"terraform/README.md lacks {BEGIN if not begin else END}")
    tables = "\n\n".join(root_tables(README.parent / root) for root in ROOTS)
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def input_row(block: Block) -> str:
    """A variable as a row of the table."""
    kept_out = [word for word in ("sensitive", "ephemeral") if block.attributes.get(word) == "true"]
    kind = ", ".join([f"`{block.attributes['type']}`", *kept_out])
    default = block.attributes.get("default")
    return (
        f"| `{block.name}` | {kind} | {f'`{default}`' if default else 'required'} "
        f"| {_description(block)} |"
    )


def _description(block: Block) -> str:
    text = block.attributes["description"].removeprefix('"').removesuffix('"')
    # A name in angle brackets would be read as HTML.
    return text.replace('\\"', '"').replace("<", "\\<").replace("|", "\\|")


def _one_line(value: str) -> str:
    lines = [re.sub(r" +", " ", line.strip()) for line in value.splitlines()]
    joined, *lines = lines
    for line in lines:
        apart = joined.endswith(("{", "[", "(", ",")) or line.startswith(("}", "]", ")"))
        joined += f" {line}" if apart else f", {line}"
    return joined


def main() -> None:
    """Write the tables."""
    text = README.read_text(encoding="utf-8")
    README.write_text(with_tables(text), encoding="utf-8")


if __name__ == "__main__":
    main()
