# Only the variables, without resources: no provider has to start for them.

variables {
  lab            = "demo"
  owner          = "someone@example.com"
  expires_at     = "2030-01-31T18:00:00Z"
  allowed_cidrs  = ["203.0.113.7/32", "8.8.4.4/32"]
  image          = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/gateway-lab:0123abcd"
  repository_arn = "arn:aws:ecr:eu-central-1:111122223333:repository/gateway-lab"
  tls_pem        = "-----BEGIN PRIVATE KEY-----canary-----BEGIN CERTIFICATE-----"
  tls_version    = 1

  models = {
    "bedrock-nova-micro" = { model_id = "amazon.nova-micro-v1:0" }
  }
}

run "lab_empty" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    lab = ""
  }

  expect_failures = [var.lab]
}

run "lab_one_letter" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    lab = "a"
  }

  expect_failures = [var.lab]
}

run "lab_upper_case" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    lab = "Demo"
  }

  expect_failures = [var.lab]
}

run "lab_digit_first" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    lab = "1demo"
  }

  expect_failures = [var.lab]
}

run "lab_trailing_dash" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    lab = "demo-"
  }

  expect_failures = [var.lab]
}

run "lab_double_dash" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    lab = "de--mo"
  }

  expect_failures = [var.lab]
}

run "lab_underscore" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    lab = "de_mo"
  }

  expect_failures = [var.lab]
}

run "lab_21_characters" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    lab = "abcdefghijklmnopqrstu"
  }

  expect_failures = [var.lab]
}

run "lab_newline" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    lab = "demo\n"
  }

  expect_failures = [var.lab]
}

run "owner_empty" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    owner = ""
  }

  expect_failures = [var.owner]
}

run "owner_space" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    owner = "some one"
  }

  expect_failures = [var.owner]
}

run "owner_65_characters" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    owner = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
  }

  expect_failures = [var.owner]
}

run "expires_at_word" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    expires_at = "tomorrow"
  }

  expect_failures = [var.expires_at]
}

run "expires_at_offset" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    expires_at = "2030-01-31T18:00:00+01:00"
  }

  expect_failures = [var.expires_at]
}

run "expires_at_date_only" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    expires_at = "2030-01-31Z"
  }

  expect_failures = [var.expires_at]
}

run "expires_at_month_13" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    expires_at = "2030-13-31T18:00:00Z"
  }

  expect_failures = [var.expires_at]
}

run "stop_grace_minutes_zero" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    stop_grace_minutes = 0
  }

  expect_failures = [var.stop_grace_minutes]
}

run "stop_grace_minutes_longer_than_a_day" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    stop_grace_minutes = 1441
  }

  expect_failures = [var.stop_grace_minutes]
}

run "stop_grace_minutes_fraction" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    stop_grace_minutes = 1.5
  }

  expect_failures = [var.stop_grace_minutes]
}

run "role_boundary_of_no_account" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    role_boundary_arn = "gateway-lab-boundary"
  }

  expect_failures = [var.role_boundary_arn]
}

run "allowed_cidrs_none" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = []
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_21_hosts" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = [for n in range(1, 22) : "203.0.113.${n}/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_everyone" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["0.0.0.0/0"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_slash_24" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["203.0.113.0/24"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_slash_31" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["203.0.113.6/31"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_ipv6" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["2001:db8::1/128"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_no_prefix" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["203.0.113.7"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_word" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["myself"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_octet_256" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["203.0.113.256/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_leading_zero" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["010.1.1.1/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_three_octets" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["203.0.113/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_one_bad_among_good" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["203.0.113.7/32", "0.0.0.0/0"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_this_network" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["0.1.2.3/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_private_10" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["10.1.2.3/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_private_172_16" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["172.16.0.1/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_private_172_31" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["172.31.255.255/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_private_192_168" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["192.168.1.1/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_shared_100_64" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["100.64.0.1/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_shared_100_127" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["100.127.255.255/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_loopback" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["127.0.0.1/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_link_local" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["169.254.169.254/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_protocol_assignments" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["192.0.0.1/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_benchmarking" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["198.19.255.255/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_multicast" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["224.0.0.1/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_multicast_239" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["239.255.255.255/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_reserved_240" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["240.0.0.1/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "allowed_cidrs_broadcast" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    allowed_cidrs = ["255.255.255.255/32"]
  }

  expect_failures = [var.allowed_cidrs]
}

run "gateway_port_privileged" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gateway_port = 443
  }

  expect_failures = [var.gateway_port]
}

run "gateway_port_too_high" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gateway_port = 65536
  }

  expect_failures = [var.gateway_port]
}

run "gateway_port_fraction" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    gateway_port = 4000.5
  }

  expect_failures = [var.gateway_port]
}

run "image_no_tag" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    image = "localhost:4566/gateway-lab"
  }

  expect_failures = [var.image]
}

run "image_latest" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    image = "localhost:4566/gateway-lab:latest"
  }

  expect_failures = [var.image]
}

run "image_short_digest" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    image = "localhost:4566/gateway-lab@sha256:0123"
  }

  expect_failures = [var.image]
}

run "image_another_repository" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    image = "localhost:4566/somebody-else:1"
  }

  expect_failures = [var.image]
}

run "image_longer_repository" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    image = "localhost:4566/x/gateway-lab:1"
  }

  expect_failures = [var.image]
}

run "repository_arn_wildcard" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    repository_arn = "arn:aws:ecr:eu-central-1:111122223333:repository/*"
  }

  expect_failures = [var.repository_arn]
}

run "repository_arn_url" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    repository_arn = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/gateway-lab"
  }

  expect_failures = [var.repository_arn]
}

run "architecture_linux_spelling" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    architecture = "x86_64"
  }

  expect_failures = [var.architecture]
}

run "architecture_docker_spelling" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    architecture = "amd64"
  }

  expect_failures = [var.architecture]
}

run "cpu_odd" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    cpu = 300
  }

  expect_failures = [var.cpu]
}

run "cpu_32_vcpu" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    cpu = 32768
  }

  expect_failures = [var.cpu]
}

run "memory_too_small_for_cpu" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    memory = 512
  }

  expect_failures = [var.memory]
}

run "memory_between_sizes" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    memory = 2500
  }

  expect_failures = [var.memory]
}

run "memory_too_big_for_cpu" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    memory = 16384
  }

  expect_failures = [var.memory]
}

run "capacity_provider_ec2" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    capacity_provider = "EC2"
  }

  expect_failures = [var.capacity_provider]
}

run "capacity_provider_lower_case" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    capacity_provider = "fargate_spot"
  }

  expect_failures = [var.capacity_provider]
}

run "desired_count_two" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    desired_count = 2
  }

  expect_failures = [var.desired_count]
}

run "desired_count_negative" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    desired_count = -1
  }

  expect_failures = [var.desired_count]
}

run "models_none" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    models = {}
  }

  expect_failures = [var.models]
}

run "models_wildcard" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    models = { all = { model_id = "*" } }
  }

  expect_failures = [var.models]
}

run "models_wildcard_within" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    models = { all = { model_id = "amazon.*" } }
  }

  expect_failures = [var.models]
}

run "models_profile_wildcard" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    models = { all = { model_id = "amazon.nova-lite-v1:0", inference_profile_id = "us.*", regions = ["us-east-1"] } }
  }

  expect_failures = [var.models]
}

run "models_profile_without_regions" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    models = { lite = { model_id = "amazon.nova-lite-v1:0", inference_profile_id = "us.amazon.nova-lite-v1:0" } }
  }

  expect_failures = [var.models]
}

run "models_regions_without_profile" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    models = { lite = { model_id = "amazon.nova-lite-v1:0", regions = ["us-east-1"] } }
  }

  expect_failures = [var.models]
}

run "models_region_wildcard" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    models = { lite = { model_id = "amazon.nova-lite-v1:0", inference_profile_id = "us.amazon.nova-lite-v1:0", regions = ["us-*"] } }
  }

  expect_failures = [var.models]
}

run "container_environment_key" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    container_environment = { LITELLM_MASTER_KEY = "sk-mine" }
  }

  expect_failures = [var.container_environment]
}

run "container_environment_bad_name" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    container_environment = { "A B" = "x" }
  }

  expect_failures = [var.container_environment]
}

run "log_retention_days_forever" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    log_retention_days = 0
  }

  expect_failures = [var.log_retention_days]
}

run "log_retention_days_odd" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    log_retention_days = 8
  }

  expect_failures = [var.log_retention_days]
}

run "key_version_zero" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    key_version = 0
  }

  expect_failures = [var.key_version]
}

run "key_version_fraction" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    key_version = 1.5
  }

  expect_failures = [var.key_version]
}

run "tls_pem_without_key" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    tls_pem = "-----BEGIN CERTIFICATE-----"
  }

  expect_failures = [var.tls_pem]
}

run "tls_pem_without_certificate" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    tls_pem = "-----BEGIN PRIVATE KEY-----"
  }

  expect_failures = [var.tls_pem]
}

run "tls_version_zero" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    tls_version = 0
  }

  expect_failures = [var.tls_version]
}

run "tls_version_fraction" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    tls_version = 1.5
  }

  expect_failures = [var.tls_version]
}

run "container_environment_region" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    container_environment = { AWS_REGION = "us-west-2" }
  }

  expect_failures = [var.container_environment]
}

run "container_environment_port" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    container_environment = { PORT = "80" }
  }

  expect_failures = [var.container_environment]
}

run "container_environment_certificate" {
  command = plan

  module {
    source = "./tests/variables"
  }

  variables {
    container_environment = { GATEWAY_TLS_PEM = "mine" }
  }

  expect_failures = [var.container_environment]
}
