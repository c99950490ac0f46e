mock_provider "aws" {}

run "keeps_images_as_they_were_pushed" {
  command = plan

  assert {
    condition     = aws_ecr_repository.this.name == "gateway-lab"
    error_message = "The repository is called gateway-lab."
  }

  assert {
    condition     = aws_ecr_repository.this.image_tag_mutability == "IMMUTABLE"
    error_message = "A tag never names another image."
  }

  assert {
    condition     = aws_ecr_repository.this.image_scanning_configuration[0].scan_on_push
    error_message = "Images are scanned when they are pushed."
  }

  assert {
    condition     = aws_ecr_repository.this.encryption_configuration[0].encryption_type == "AES256"
    error_message = "Images are encrypted."
  }

  assert {
    condition     = aws_ecr_repository.this.force_delete
    error_message = "A purge works while the repository holds images."
  }

  assert {
    condition = {
      for r in jsondecode(aws_ecr_lifecycle_policy.this.policy).rules :
      r.rulePriority => "${r.action.type} ${r.selection.tagStatus} ${r.selection.countType} ${r.selection.countNumber}"
      } == {
      "1" = "expire untagged sinceImagePushed 1"
      "2" = "expire any imageCountMoreThan 20"
    }
    error_message = "Untagged images expire after a day, tagged ones beyond the last 20."
  }

  assert {
    condition     = local.tags == { "lab:project" = "gateway-lab", "lab:managed-by" = "terraform" }
    error_message = "The tags name project and tool."
  }
}

run "follows_its_settings" {
  command = plan

  variables {
    repository_name = "team/gateway"
    keep_images     = 3
    force_delete    = false
  }

  assert {
    condition     = aws_ecr_repository.this.name == "team/gateway" && !aws_ecr_repository.this.force_delete
    error_message = "Name and force_delete are settings."
  }

  assert {
    condition     = jsondecode(aws_ecr_lifecycle_policy.this.policy).rules[1].selection.countNumber == 3
    error_message = "How many images are kept is a setting."
  }
}

run "repository_name_upper_case" {
  command = plan

  variables {
    repository_name = "Gateway"
  }

  expect_failures = [var.repository_name]
}

run "repository_name_one_letter" {
  command = plan

  variables {
    repository_name = "g"
  }

  expect_failures = [var.repository_name]
}

run "keep_images_none" {
  command = plan

  variables {
    keep_images = 0
  }

  expect_failures = [var.keep_images]
}

run "keep_images_fraction" {
  command = plan

  variables {
    keep_images = 1.5
  }

  expect_failures = [var.keep_images]
}
