terraform {
  # Bucket, key and region differ per account: `terraform init -backend-config=...` gives them.
  backend "s3" {}
}
