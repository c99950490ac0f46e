"""The gateway's image as plain data: recipe, contents, bill of materials, advisories."""
