data "aws_caller_identity" "this" {}

data "aws_partition" "this" {}

# Says in which region the provider works. The data source that is made for this, aws_region, has no
# attribute for it that both releases 5 and 6 of the provider have and neither deprecates.
data "aws_service" "ecs" {
  service_id = "ecs"
}

data "aws_availability_zones" "this" {
  # checkov:skip=CKV_AWS_394: a lab takes the first two zones, and lives for hours
  state = "available"

  # Local Zones have to be opted into and have no Fargate.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  project = "gateway-lab"
  name    = "${local.project}-${var.lab}"

  tags = {
    "lab:id"         = var.lab
    "lab:project"    = local.project
    "lab:owner"      = var.owner
    "lab:managed-by" = "terraform"
  }

  # Roles belong to no region; a search for a lab's leftovers must not take another region's roles.
  role_tags = { "lab:region" = local.region }

  role_boundary = var.role_boundary_arn == "" ? null : var.role_boundary_arn

  account   = data.aws_caller_identity.this.account_id
  partition = data.aws_partition.this.partition
  region    = data.aws_service.ecs.region
}
