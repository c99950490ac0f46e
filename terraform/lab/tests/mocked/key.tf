# Replaces the lab's key.tf in tests. Terraform's mocks do not support ephemeral resources (1.11
# refuses the whole configuration), so the tests use every other file of the lab.

resource "aws_secretsmanager_secret" "this" {
  name = "${local.name}/gateway-key"
}

resource "aws_secretsmanager_secret_version" "this" {
  secret_id                = aws_secretsmanager_secret.this.id
  secret_string_wo         = "sk-canary" # pragma: allowlist secret: of no lab
  secret_string_wo_version = var.key_version
}
