variable "repository_name" {
  description = "Name of the ECR repository that all labs of the account and region share."
  type        = string
  default     = "gateway-lab"
  nullable    = false

  validation {
    condition     = length(var.repository_name) <= 256 && can(regex("^[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*$", var.repository_name)) && length(var.repository_name) >= 2
    error_message = "repository_name \"${var.repository_name}\" is not allowed: 2 to 256 lower-case letters and digits, separated by single '.', '_', '-' or '/'."
  }
}

variable "keep_images" {
  description = "How many images the repository keeps; older ones expire."
  type        = number
  default     = 20
  nullable    = false

  validation {
    condition     = var.keep_images >= 1 && var.keep_images <= 1000 && floor(var.keep_images) == var.keep_images
    error_message = "keep_images ${var.keep_images} is not allowed: a whole number from 1 to 1000."
  }
}

variable "force_delete" {
  description = "Whether a destroy also deletes the images that the repository still holds."
  type        = bool

  # A destroy uses the value of the last apply, so false here would make every purge of a used
  # repository fail. Nothing is lost: an image's tag is the hash of its inputs, and it can be
  # built again from them.
  default  = true
  nullable = false
}
