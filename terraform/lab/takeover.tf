# A file of its own: Terraform accepts an import block in a root module only, and the tests use most
# of the other files in a module of theirs.

# The provider waits ten seconds for a cluster that it makes, and ten for its capacity providers,
# although one call of ECS makes both at once. cluster_exists says that this call was made.
import {
  for_each = var.cluster_exists ? toset([local.name]) : toset([])
  to       = aws_ecs_cluster.this
  id       = each.value
}
