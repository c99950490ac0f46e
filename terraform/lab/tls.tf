# The gateway's certificate with its private key. Both are made elsewhere and come in an ephemeral
# variable, which goes to Secrets Manager as a write-only argument: neither plan nor state ever
# holds them.

resource "aws_secretsmanager_secret" "tls" {
  # checkov:skip=CKV_AWS_149: AWS's own key encrypts it; one of the account is billed by the month
  # checkov:skip=CKV2_AWS_57: each lab has its own certificate, which lasts as long as the lab may
  name        = "${local.name}/gateway-tls"
  description = "Private key and certificate of the gateway of lab ${var.lab}"

  # A secret that waits for its deletion keeps its name, and a rebuild of the lab would collide.
  recovery_window_in_days = 0
}

resource "aws_secretsmanager_secret_version" "tls" {
  secret_id = aws_secretsmanager_secret.tls.id

  # Only another version number writes it.
  secret_string_wo         = var.tls_pem
  secret_string_wo_version = var.tls_version

  lifecycle {
    # A task that starts meanwhile must find one.
    create_before_destroy = true
  }
}
