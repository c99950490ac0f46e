locals {
  container_name = "gateway"

  gateway_environment = {
    PORT = tostring(var.gateway_port)
    # Without it LiteLLM calls Bedrock in a region of its own choice.
    AWS_REGION       = local.region
    GATEWAY_TLS_NAME = "${local.name}.internal"

    # Nothing reads it: it makes a new revision for a new certificate, and so the task restarts.
    GATEWAY_TLS_VERSION = tostring(var.tls_version)
  }
}

resource "aws_cloudwatch_log_group" "this" {
  # checkov:skip=CKV_AWS_158: CloudWatch has its own key; one of the account would outlast the lab
  # checkov:skip=CKV_AWS_338: the lab lives for hours, and its log goes with it
  name              = "/${local.project}/${var.lab}"
  retention_in_days = var.log_retention_days
}

resource "aws_ecs_cluster" "this" {
  name = local.name

  # checkov:skip=CKV_AWS_65: metrics per container are billed, and a lab lives for hours
  setting {
    name  = "containerInsights"
    value = "disabled"
  }

  # Only here, so that moving the lab's end changes only this and the schedule.
  tags = { "lab:expires-at" = var.expires_at }
}

# A cluster that was made before already has them.
resource "aws_ecs_cluster_capacity_providers" "this" {
  count = var.cluster_exists ? 0 : 1

  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
}

resource "aws_ecs_task_definition" "this" {
  family                   = local.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn

  # A running service still uses the revision that a new one replaces, and a rollback returns to
  # it. Old revisions are deregistered when the lab is taken down.
  skip_destroy = true

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  container_definitions = jsonencode([{
    name      = local.container_name
    image     = var.image
    essential = true

    portMappings = [{
      containerPort = var.gateway_port
      hostPort      = var.gateway_port
      protocol      = "tcp"
    }]

    environment = [
      for k, v in merge(var.container_environment, local.gateway_environment) :
      { name = k, value = v }
    ]
    secrets = [
      { name = "LITELLM_MASTER_KEY", valueFrom = aws_secretsmanager_secret.this.arn },
      { name = "GATEWAY_TLS_PEM", valueFrom = aws_secretsmanager_secret.tls.arn },
    ]

    # The image's own user, named here too: another image must not make it root.
    user                   = "65532:65532"
    readonlyRootFilesystem = true

    healthCheck = {
      # The image has neither curl nor a reason for it.
      command     = ["CMD", "python3", "-I", "/opt/gateway/healthcheck.py"]
      interval    = 10
      timeout     = 5
      retries     = 3
      startPeriod = 120
    }

    # Spot warns two minutes ahead, which is also the longest that Fargate grants.
    stopTimeout = 120

    linuxParameters = {
      initProcessEnabled = true
      capabilities       = { drop = ["ALL"] }
    }

    logConfiguration = {
      logDriver = "awslogs"
      options = {
        "awslogs-group"         = aws_cloudwatch_log_group.this.name
        "awslogs-region"        = local.region
        "awslogs-stream-prefix" = local.container_name
      }
    }
  }])
}

resource "aws_ecs_service" "this" {
  # checkov:skip=CKV_AWS_333: a NAT gateway would cost more than the task; the firewall names each host
  name            = local.name
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.this.arn
  desired_count   = var.desired_count

  # A new version answers before the old one goes.
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200

  enable_ecs_managed_tags = true
  propagate_tags          = "SERVICE"

  # Without it a change of the capacity provider replaces the service.
  force_new_deployment = true

  # Apply runs while the image is built: it must not wait for a task that cannot start yet.
  wait_for_steady_state = false

  # Lets a destroy end a service that still has tasks.
  force_delete = true

  capacity_provider_strategy {
    capacity_provider = var.capacity_provider
    weight            = 1
  }

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = aws_subnet.public[*].id
    security_groups  = [aws_security_group.gateway.id]
    assign_public_ip = true
  }

  lifecycle {
    # The rollout points the service to a new revision once its image is in the registry. If apply
    # did it, the service would look for an image that is still being built.
    #
    # A single task has no zones to balance; not every ECS endpoint reports the setting, and each
    # plan would then want to set it again.
    ignore_changes = [task_definition, desired_count, availability_zone_rebalancing]
  }

  # A task needs these from before its start until after its stop. The schedule of the lab's end is
  # among them: it must exist before the task does.
  depends_on = [
    aws_ecs_cluster_capacity_providers.this,
    aws_iam_role_policy.execution,
    aws_iam_role_policy.task,
    aws_route.internet,
    aws_route_table_association.public,
    aws_scheduler_schedule.stop,
    aws_secretsmanager_secret_version.this,
    aws_secretsmanager_secret_version.tls,
    aws_vpc_security_group_egress_rule.https,
    aws_vpc_security_group_ingress_rule.gateway,
  ]
}
