"""The tables of inputs and outputs match the Terraform roots."""

from __future__ import annotations

import re

import pytest

from workstation.terraform_tables import (
    BEGIN,
    END,
    README,
    ROOTS,
    input_row,
    read_blocks,
    with_tables,
)

TEXT = """
# A comment, and a local that is no input.
locals {
  type = "none"
}

variable "models" {
  description = "Each <model> by \\"alias\\", or a | b."
  type = map(object({
    model_id = string
    regions  = optional(set(string), [])
  }))
  nullable = false

  validation {
    condition     = length(var.models) > 0
    error_message = "type = is empty."
  }
}

variable "pem" {
  type        = string
  sensitive   = true
  ephemeral   = true
  description = "A key."

  # Why it is so.
  default = [
    "one",
    "two",
  ]
}
"""


def test_the_readme_has_the_current_tables() -> None:
    """should be what `make tables` writes; run it after a change of variables.tf or outputs.tf"""
    text = README.read_text()
    assert text == with_tables(text)


@pytest.mark.parametrize("root", ROOTS)
def test_no_input_or_output_is_missing(root: str) -> None:
    """should read each variable and output that Terraform reads, with a type and a description"""
    for file, kind in (("variables.tf", "variable"), ("outputs.tf", "output")):
        text = (README.parent / root / file).read_text()
        blocks = read_blocks(text)
        assert [b.name for b in blocks] == re.findall(rf'^{kind} "([^"]+)"', text, re.MULTILINE)
        assert all("description" in b.attributes for b in blocks)
        assert kind == "output" or all("type" in b.attributes for b in blocks)


def test_attributes_are_read_in_one_line() -> None:
    """should join lines of a broken attribute, and skip blocks within a block"""
    models, pem = read_blocks(TEXT)
    assert models.kind == "variable"
    assert models.attributes == {
        "description": '"Each <model> by \\"alias\\", or a | b."',
        "type": "map(object({ model_id = string, regions = optional(set(string), []) }))",
        "nullable": "false",
    }
    assert pem.attributes["default"] == '[ "one", "two", ]'
    assert pem.attributes["ephemeral"] == "true"


def test_rows_are_safe_in_markdown() -> None:
    """should escape HTML and column marks, and name the values that are kept out of the state"""
    models, pem = read_blocks(TEXT)
    assert input_row(models).endswith('| required | Each \\<model> by "alias", or a \\| b. |')
    assert input_row(pem).startswith("| `pem` | `string`, sensitive, ephemeral | `[")


def test_a_readme_without_markers_is_refused() -> None:
    """should name the missing marker"""
    with pytest.raises(ValueError, match="lacks <!-- tables: "):
        with_tables("# Terraform\n")
    with pytest.raises(ValueError, match=re.escape(END)):
        with_tables(f"# Terraform\n{BEGIN}\n")
