# A file of its own: Terraform takes an import block in a root module only, and the tests run most of
# the others as a part of one of theirs.

# The provider waits ten seconds for a cluster that it makes, and ten for the capacity providers of
# one, though ECS makes both at once by one call. Whoever has made that call says so.
import {
  for_each = var.cluster_exists ? toset([local.name]) : toset([])
  to       = aws_ecs_cluster.this
  id       = each.value
}
