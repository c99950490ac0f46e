locals {
  tags = {
    "lab:project"    = "gateway-lab"
    "lab:managed-by" = "terraform"
  }
}

resource "aws_ecr_repository" "this" {
  # checkov:skip=CKV_AWS_136: a key of the account's own is billed by the month, even without a lab
  name         = var.repository_name
  force_delete = var.force_delete

  # A tag is the hash of everything that went into the image; it must never name another one.
  image_tag_mutability = "IMMUTABLE"

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "AES256"
  }
}

resource "aws_ecr_lifecycle_policy" "this" {
  repository = aws_ecr_repository.this.name

  policy = jsonencode({
    rules = [
      {
        rulePriority = 1
        description  = "Expire what an interrupted push left behind"
        selection = {
          tagStatus   = "untagged"
          countType   = "sinceImagePushed"
          countUnit   = "days"
          countNumber = 1
        }
        action = { type = "expire" }
      },
      {
        # ECR wants the rule for any tag status last.
        rulePriority = 2
        description  = "Keep the last ${var.keep_images} images"
        selection = {
          tagStatus   = "any"
          countType   = "imageCountMoreThan"
          countNumber = var.keep_images
        }
        action = { type = "expire" }
      },
    ]
  })
}
