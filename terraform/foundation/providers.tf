# Region, credentials and endpoint come from the environment, so that the same code serves AWS
# and a local cloud.
provider "aws" {
  default_tags {
    tags = local.tags
  }
}
