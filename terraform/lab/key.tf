# The gateway's key. AWS makes it, and it goes to Secrets Manager as a write-only argument: neither
# plan nor state ever holds it.

ephemeral "aws_secretsmanager_random_password" "key" {
  password_length     = 48
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "this" {
  # checkov:skip=CKV_AWS_149: AWS's own key encrypts it; one of the account is billed by the month
  # checkov:skip=CKV2_AWS_57: each lab has a new key, and lives for hours; key_version makes another
  name        = "${local.name}/gateway-key"
  description = "Key that clients of the gateway of lab ${var.lab} present"

  # A secret that waits for its deletion keeps its name, and a rebuild of the lab would collide.
  recovery_window_in_days = 0
}

resource "aws_secretsmanager_secret_version" "this" {
  secret_id = aws_secretsmanager_secret.this.id

  # The value is new on every run; only another version number writes it.
  secret_string_wo         = "sk-${ephemeral.aws_secretsmanager_random_password.key.random_password}"
  secret_string_wo_version = var.key_version

  lifecycle {
    # A task that starts during a rotation must find a key.
    create_before_destroy = true
  }
}
