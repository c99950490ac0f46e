"""The only code that touches the outside: Terraform, AWS, Docker, HTTP, the file system.

Every adapter translates its vendor's errors into :mod:`lab.errors`.
"""
