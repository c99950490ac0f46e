locals {
  # Fargate's CPU units (1024 are one vCPU), each with its memory sizes in MiB.
  task_sizes = {
    "256"   = [512, 1024, 2048]
    "512"   = range(1024, 4096 + 1, 1024)
    "1024"  = range(2048, 8192 + 1, 1024)
    "2048"  = range(4096, 16384 + 1, 1024)
    "4096"  = range(8192, 30720 + 1, 1024)
    "8192"  = range(16384, 61440 + 1, 4096)
    "16384" = range(32768, 122880 + 1, 8192)
  }

  octet     = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
  ipv4_host = "^${local.octet}(\\.${local.octet}){3}/32$"

  # Addresses that no host on the Internet has. The ranges for documentation are not among them: no
  # host has those either, so a rule for one opens nothing, and a local cloud, which has no public
  # address, uses one.
  not_public = join("|", [
    "^0\\.",                                            # this network
    "^10\\.",                                           # private
    "^100\\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])\\.", # shared by carriers (CGNAT)
    "^127\\.",                                          # loopback
    "^169\\.254\\.",                                    # link-local
    "^172\\.(1[6-9]|2[0-9]|3[01])\\.",                  # private
    "^192\\.0\\.0\\.",                                  # protocol assignments
    "^192\\.168\\.",                                    # private
    "^198\\.1[89]\\.",                                  # benchmarking
    "^(22[4-9]|23[0-9])\\.",                            # multicast
    "^(24[0-9]|25[0-5])\\.",                            # reserved
  ])

  own_environment = ["AWS_REGION", "GATEWAY_TLS_NAME", "GATEWAY_TLS_PEM", "GATEWAY_TLS_VERSION", "LITELLM_MASTER_KEY", "PORT"]

  bedrock_id = "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]+)*$"
}

variable "lab" {
  description = "Name of the lab; every resource is called gateway-lab-<lab>."
  type        = string
  nullable    = false

  validation {
    condition     = length(var.lab) <= 20 && can(regex("^[a-z](-?[a-z0-9])+$", var.lab))
    error_message = "lab \"${var.lab}\" is not allowed: 2 to 20 lower-case letters, digits and single dashes, beginning with a letter and not ending with a dash."
  }
}

variable "owner" {
  description = "Who is responsible for the lab; the tag lab:owner."
  type        = string
  default     = "unknown"
  nullable    = false

  validation {
    condition     = can(regex("^[A-Za-z0-9_.@+-]{1,64}$", var.owner))
    error_message = "owner \"${var.owner}\" is not allowed: 1 to 64 letters, digits and _ . @ + -."
  }
}

variable "expires_at" {
  description = "When the lab ends, RFC 3339 in UTC (2030-01-31T18:00:00Z); the tag lab:expires-at of the cluster."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("Z$", var.expires_at)) && can(timeadd(var.expires_at, "0s"))
    error_message = "expires_at \"${var.expires_at}\" is not allowed: a time in UTC such as 2030-01-31T18:00:00Z."
  }
}

variable "stop_grace_minutes" {
  description = "Minutes after expires_at when the cloud itself sets the service to zero tasks, unless the lab was destroyed by then."
  type        = number
  default     = 15
  nullable    = false

  validation {
    condition     = var.stop_grace_minutes >= 1 && var.stop_grace_minutes <= 1440 && floor(var.stop_grace_minutes) == var.stop_grace_minutes
    error_message = "stop_grace_minutes ${var.stop_grace_minutes} is not allowed: a whole number from 1 to 1440."
  }
}

variable "role_boundary_arn" {
  description = "ARN of the permissions boundary of the lab's roles; empty: they have none. A deployer whose own rights end at the boundary cannot make roles without it."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(arn:aws[a-z-]*:iam::[0-9]{12}:policy/[A-Za-z0-9_+=,.@/-]+)?$", var.role_boundary_arn))
    error_message = "role_boundary_arn \"${var.role_boundary_arn}\" is not allowed: empty, or arn:aws:iam::ACCOUNT:policy/NAME."
  }
}

variable "allowed_cidrs" {
  description = "The hosts that may reach the gateway, each as a public IPv4 address with /32."
  type        = set(string)
  nullable    = false

  validation {
    condition     = length(var.allowed_cidrs) >= 1 && length(var.allowed_cidrs) <= 20
    error_message = "allowed_cidrs has ${length(var.allowed_cidrs)} entries: 1 to 20 are allowed."
  }

  validation {
    condition     = alltrue([for c in var.allowed_cidrs : can(regex(local.ipv4_host, c))])
    error_message = "allowed_cidrs refuses ${join(", ", [for c in var.allowed_cidrs : c if !can(regex(local.ipv4_host, c))])}: each entry is exactly one IPv4 host, such as 8.8.4.4/32."
  }

  validation {
    condition     = alltrue([for c in var.allowed_cidrs : !can(regex(local.not_public, c))])
    error_message = "allowed_cidrs refuses ${join(", ", [for c in var.allowed_cidrs : c if can(regex(local.not_public, c))])}: private, shared, loopback, link-local, multicast and reserved addresses are no hosts on the Internet."
  }
}

variable "gateway_port" {
  description = "Port that the gateway listens on and that the firewall opens."
  type        = number
  default     = 4000
  nullable    = false

  validation {
    condition     = var.gateway_port >= 1024 && var.gateway_port <= 65535 && floor(var.gateway_port) == var.gateway_port
    error_message = "gateway_port ${var.gateway_port} is not allowed: 1024 to 65535, since the gateway does not run as root."
  }
}

variable "image" {
  description = "The gateway's image, as repository:tag or repository@sha256:digest."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})$", var.image))
    error_message = "image \"${var.image}\" is not allowed: registry/repository:tag or registry/repository@sha256:digest."
  }

  validation {
    condition     = !endswith(var.image, ":latest")
    error_message = "image \"${var.image}\" is not allowed: latest is another image tomorrow; give the tag or digest that was pushed."
  }

  validation {
    condition     = can(regex("^[^/]+/${element(split(":repository/", var.repository_arn), 1)}[:@]", var.image))
    error_message = "image \"${var.image}\" is not in ${var.repository_arn}, the only repository that the task may pull from."
  }
}

variable "repository_arn" {
  description = "ARN of the ECR repository that holds the image; the foundation's output repository_arn."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:ecr:[a-z0-9-]+:[0-9]{12}:repository/[a-z0-9][a-z0-9._/-]*$", var.repository_arn))
    error_message = "repository_arn \"${var.repository_arn}\" is not allowed: arn:aws:ecr:REGION:ACCOUNT:repository/NAME, without wildcards."
  }
}

variable "architecture" {
  description = "Processor architecture of image and task, in ECS's spelling."
  type        = string
  default     = "X86_64"
  nullable    = false

  validation {
    condition     = contains(["X86_64", "ARM64"], var.architecture)
    error_message = "architecture \"${var.architecture}\" is not allowed: X86_64 or ARM64."
  }
}

variable "cpu" {
  description = "CPU units of the task; 1024 are one vCPU."
  type        = number
  default     = 1024
  nullable    = false

  validation {
    condition     = contains(keys(local.task_sizes), tostring(var.cpu))
    error_message = "cpu ${var.cpu} is not a Fargate size: 256, 512, 1024, 2048, 4096, 8192 or 16384."
  }
}

variable "memory" {
  description = "Memory of the task in MiB."
  type        = number
  default     = 2048
  nullable    = false

  validation {
    condition     = contains(lookup(local.task_sizes, tostring(var.cpu), [var.memory]), var.memory)
    error_message = "memory ${var.memory} MiB does not go with cpu ${var.cpu} on Fargate: ${join(", ", lookup(local.task_sizes, tostring(var.cpu), []))}."
  }
}

variable "capacity_provider" {
  description = "Where the task's compute comes from: FARGATE_SPOT is spare capacity at a discount."
  type        = string
  default     = "FARGATE_SPOT"
  nullable    = false

  validation {
    condition     = contains(["FARGATE_SPOT", "FARGATE"], var.capacity_provider)
    error_message = "capacity_provider \"${var.capacity_provider}\" is not allowed: FARGATE_SPOT or FARGATE."
  }
}

variable "cluster_exists" {
  description = "Whether the cluster has been made already, with the capacity providers FARGATE and FARGATE_SPOT. Terraform then takes it over."
  type        = bool
  default     = false
  nullable    = false
}

variable "desired_count" {
  description = "Tasks of a new service; 0 while its image is not in the registry. Later changes are ignored."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = contains([0, 1], var.desired_count)
    error_message = "desired_count ${var.desired_count} is not allowed: 0 or 1."
  }
}

variable "models" {
  description = "The models that the gateway may call, by alias. A model behind an inference profile names the profile and every region that the profile routes to."
  type = map(object({
    model_id             = string
    inference_profile_id = optional(string)
    regions              = optional(set(string), [])
  }))
  nullable = false

  validation {
    condition     = length(var.models) > 0
    error_message = "models is empty: a gateway needs at least one."
  }

  # These become ARNs in a policy, where a wildcard would widen it.
  validation {
    condition     = alltrue([for m in var.models : can(regex(local.bedrock_id, m.model_id))])
    error_message = "models refuses ${join(", ", [for a, m in var.models : "${a} (${m.model_id})" if !can(regex(local.bedrock_id, m.model_id))])}: model_id is a Bedrock model ID such as amazon.nova-micro-v1:0, without wildcards."
  }

  validation {
    condition     = alltrue([for m in var.models : m.inference_profile_id == null || can(regex(local.bedrock_id, m.inference_profile_id))])
    error_message = "models refuses ${join(", ", [for a, m in var.models : "${a} (${m.inference_profile_id})" if m.inference_profile_id != null && !can(regex(local.bedrock_id, m.inference_profile_id))])}: inference_profile_id is a profile ID such as us.amazon.nova-micro-v1:0, without wildcards."
  }

  validation {
    condition     = alltrue([for m in var.models : (m.inference_profile_id != null) == (length(m.regions) > 0)])
    error_message = "models refuses ${join(", ", [for a, m in var.models : a if(m.inference_profile_id != null) != (length(m.regions) > 0)])}: regions goes with inference_profile_id, and an inference profile needs at least one."
  }

  validation {
    condition     = alltrue(flatten([for m in var.models : [for r in m.regions : can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]+$", r))]]))
    error_message = "models refuses the regions ${join(", ", flatten([for m in var.models : [for r in m.regions : r if !can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]+$", r))]]))}: a region is spelled like eu-central-1."
  }
}

variable "container_environment" {
  description = "Environment of the gateway's container. Not for secrets: it can be read in the task definition and in the state."
  type        = map(string)
  default     = {}
  nullable    = false

  validation {
    condition     = alltrue([for k in keys(var.container_environment) : can(regex("^[A-Za-z_][A-Za-z0-9_]*$", k))])
    error_message = "container_environment refuses ${join(", ", [for k in keys(var.container_environment) : "\"${k}\"" if !can(regex("^[A-Za-z_][A-Za-z0-9_]*$", k))])}: a name is letters, digits and underscores, not beginning with a digit."
  }

  validation {
    condition     = length(setintersection(keys(var.container_environment), local.own_environment)) == 0
    error_message = "container_environment may not set ${join(", ", setintersection(keys(var.container_environment), local.own_environment))}: the lab sets it itself, secrets from Secrets Manager."
  }
}

variable "log_retention_days" {
  description = "Days that CloudWatch keeps the gateway's log."
  type        = number
  default     = 7
  nullable    = false

  validation {
    condition = contains(
      [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653],
      var.log_retention_days
    )
    error_message = "log_retention_days ${var.log_retention_days} is not allowed: CloudWatch takes 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

variable "key_version" {
  description = "Raise it to have AWS make a new gateway key; tasks read it when they start."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.key_version >= 1 && floor(var.key_version) == var.key_version
    error_message = "key_version ${var.key_version} is not allowed: a whole number from 1."
  }
}

variable "tls_pem" {
  description = "The gateway's private key, its certificate for gateway-lab-<lab>.internal and the authority that signed it, as one PEM. Give it in the environment, as TF_VAR_tls_pem: it is kept in Secrets Manager only."
  type        = string
  sensitive   = true
  ephemeral   = true
  nullable    = false

  validation {
    condition     = strcontains(var.tls_pem, "PRIVATE KEY-----") && strcontains(var.tls_pem, "-----BEGIN CERTIFICATE-----")
    error_message = "tls_pem is not allowed: one PEM with a private key and its certificates."
  }
}

variable "tls_version" {
  description = "Raise it to have another tls_pem written; tasks read it when they start."
  type        = number
  nullable    = false

  validation {
    condition     = var.tls_version >= 1 && floor(var.tls_version) == var.tls_version
    error_message = "tls_version ${var.tls_version} is not allowed: a whole number from 1."
  }
}
