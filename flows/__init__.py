"""The story of a lab, and only the story: each flow says in order what happens."""
