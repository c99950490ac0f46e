mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }

  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }

  mock_data "aws_service" {
    defaults = { region = "eu-central-1" }
  }

  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-central-1a", "eu-central-1b", "eu-central-1c"] }
  }

  mock_resource "aws_secretsmanager_secret" {
    defaults = { arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:gateway-lab-demo/gateway-key-AbCdEf" }
  }

  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:111122223333:log-group:/gateway-lab/demo" }
  }

  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::111122223333:role/mocked" }
  }

  mock_resource "aws_sfn_state_machine" {
    defaults = { arn = "arn:aws:states:eu-central-1:111122223333:stateMachine:gateway-lab-demo-stop" }
  }

  mock_resource "aws_ecs_task_definition" {
    defaults = { arn = "arn:aws:ecs:eu-central-1:111122223333:task-definition/gateway-lab-demo:1" }
  }
}

# Different ARNs, so that a test can see which role is whose.
override_resource {
  target = aws_iam_role.scheduler
  values = { arn = "arn:aws:iam::111122223333:role/gateway-lab-demo-scheduler" }
}

override_resource {
  target = aws_iam_role.stop
  values = { arn = "arn:aws:iam::111122223333:role/gateway-lab-demo-stop" }
}

override_resource {
  target = aws_secretsmanager_secret.tls
  values = { arn = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:gateway-lab-demo/gateway-tls-GhIjKl" }
}

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

run "expands_inference_profiles" {
  command = plan

  module {
    source = "./tests/mocked"
  }

  variables {
    models = {
      "micro" = { model_id = "amazon.nova-micro-v1:0" }
      "again" = { model_id = "amazon.nova-micro-v1:0" }
      "lite" = {
        model_id             = "amazon.nova-2-lite-v1:0"
        inference_profile_id = "eu.amazon.nova-2-lite-v1:0"
        regions              = ["eu-west-1", "eu-central-1"]
      }
      "world" = {
        model_id             = "anthropic.claude-haiku-4-5-20251001-v1:0"
        inference_profile_id = "global.anthropic.claude-haiku-4-5-20251001-v1:0"
        regions              = ["eu-central-1"]
      }
    }
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.task.policy) == jsondecode(<<-JSON
      {
        "Version": "2012-10-17",
        "Statement": [
          {
            "Effect": "Allow",
            "Action": ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"],
            "Resource": ["arn:aws:bedrock:eu-central-1::foundation-model/amazon.nova-micro-v1:0"]
          },
          {
            "Effect": "Allow",
            "Action": ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"],
            "Resource": [
              "arn:aws:bedrock:eu-central-1:111122223333:inference-profile/eu.amazon.nova-2-lite-v1:0",
              "arn:aws:bedrock:eu-central-1:111122223333:inference-profile/global.anthropic.claude-haiku-4-5-20251001-v1:0"
            ]
          },
          {
            "Effect": "Allow",
            "Action": ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"],
            "Resource": [
              "arn:aws:bedrock:eu-central-1::foundation-model/amazon.nova-2-lite-v1:0",
              "arn:aws:bedrock:eu-west-1::foundation-model/amazon.nova-2-lite-v1:0"
            ],
            "Condition": {"StringEquals": {
              "bedrock:InferenceProfileArn": "arn:aws:bedrock:eu-central-1:111122223333:inference-profile/eu.amazon.nova-2-lite-v1:0"
            }}
          },
          {
            "Effect": "Allow",
            "Action": ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"],
            "Resource": [
              "arn:aws:bedrock:::foundation-model/anthropic.claude-haiku-4-5-20251001-v1:0",
              "arn:aws:bedrock:eu-central-1::foundation-model/anthropic.claude-haiku-4-5-20251001-v1:0"
            ],
            "Condition": {"StringEquals": {
              "bedrock:InferenceProfileArn": "arn:aws:bedrock:eu-central-1:111122223333:inference-profile/global.anthropic.claude-haiku-4-5-20251001-v1:0"
            }}
          }
        ]
      }
    JSON
    )
    error_message = "A profile needs its own ARN and its model's in every region, the latter only through that profile."
  }
}

run "follows_its_settings" {
  command = plan

  module {
    source = "./tests/mocked"
  }

  variables {
    architecture      = "ARM64"
    capacity_provider = "FARGATE"
    cpu               = 4096
    memory            = 30720
    desired_count     = 0
    gateway_port      = 8443
    key_version       = 7
    tls_version       = 1893456000
    role_boundary_arn = "arn:aws:iam::111122223333:policy/gateway-lab-boundary"
    image             = "localhost:4566/gateway-lab@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  }

  assert {
    condition     = aws_ecs_task_definition.this.runtime_platform[0].cpu_architecture == "ARM64"
    error_message = "The architecture is a setting."
  }

  assert {
    condition     = [for s in aws_ecs_service.this.capacity_provider_strategy : s.capacity_provider] == ["FARGATE"]
    error_message = "On-demand capacity is a setting."
  }

  assert {
    condition     = aws_ecs_task_definition.this.cpu == "4096" && aws_ecs_task_definition.this.memory == "30720"
    error_message = "The task's size is a setting."
  }

  assert {
    condition     = aws_ecs_service.this.desired_count == 0 && aws_secretsmanager_secret_version.this.secret_string_wo_version == 7
    error_message = "The number of tasks and the key's version are settings."
  }

  assert {
    condition = (
      aws_secretsmanager_secret_version.tls.secret_string_wo_version == 1893456000 &&
      local.gateway_environment.GATEWAY_TLS_VERSION == "1893456000"
    )
    error_message = "Another certificate is written, and makes another revision."
  }

  assert {
    condition     = local.gateway_environment.PORT == "8443"
    error_message = "The gateway listens where the firewall is open."
  }

  assert {
    condition = alltrue([
      for r in [aws_iam_role.execution, aws_iam_role.task, aws_iam_role.scheduler, aws_iam_role.stop] :
      r.permissions_boundary == "arn:aws:iam::111122223333:policy/gateway-lab-boundary"
    ])
    error_message = "Every role has the boundary that is asked for."
  }

  assert {
    condition     = alltrue([for r in aws_vpc_security_group_ingress_rule.gateway : r.from_port == 8443 && r.to_port == 8443]) && output.gateway_port == 8443
    error_message = "The firewall opens the gateway's port."
  }
}

run "accepts_the_last_address_before_each_reserved_range" {
  command = plan

  module {
    source = "./tests/mocked"
  }

  variables {
    allowed_cidrs = [
      "1.0.0.0/32", "9.255.255.255/32", "11.0.0.0/32", "100.63.255.255/32", "100.128.0.0/32",
      "126.255.255.255/32", "128.0.0.0/32", "169.253.255.255/32", "169.255.0.0/32",
      "172.15.255.255/32", "172.32.0.0/32", "192.0.2.1/32", "192.167.255.255/32", "192.169.0.0/32",
      "198.17.255.255/32", "198.20.0.0/32", "198.51.100.1/32", "203.0.113.1/32", "223.255.255.255/32",
    ]
  }

  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.gateway) == 19
    error_message = "Public hosts next to a reserved range are hosts."
  }
}

run "stops_the_longest_lab_in_another_partition_after_the_longest_grace" {
  command = plan

  module {
    source = "./tests/mocked"
  }

  override_data {
    target = data.aws_partition.this
    values = { partition = "aws-cn" }
  }

  variables {
    lab                = "abcdefghijklmnopqrst"
    repository_arn     = "arn:aws-cn:ecr:eu-central-1:111122223333:repository/gateway-lab"
    expires_at         = "2027-12-31T23:30:59Z"
    stop_grace_minutes = 1440
  }

  assert {
    condition     = aws_scheduler_schedule.stop.schedule_expression == "at(2028-01-01T23:30:59)"
    error_message = "The grace period is a setting, up to a day."
  }

  assert {
    condition     = jsondecode(aws_sfn_state_machine.stop.definition).States.StopService.Resource == "arn:aws-cn:states:::aws-sdk:ecs:updateService"
    error_message = "The call to ECS is in the partition of the lab."
  }

  assert {
    condition = [
      jsondecode(aws_iam_role_policy.scheduler.policy).Statement[0].Resource,
      jsondecode(aws_iam_role_policy.stop.policy).Statement[0].Resource,
      ] == [
      ["arn:aws-cn:states:eu-central-1:111122223333:stateMachine:gateway-lab-abcdefghijklmnopqrst-stop"],
      ["arn:aws-cn:ecs:eu-central-1:111122223333:service/gateway-lab-abcdefghijklmnopqrst/gateway-lab-abcdefghijklmnopqrst"],
    ]
    error_message = "Both permissions are for this lab's resources in its partition."
  }
}

run "stops_after_the_shortest_grace" {
  command = plan

  module {
    source = "./tests/mocked"
  }

  variables {
    expires_at         = "2028-02-28T23:59:30Z"
    stop_grace_minutes = 1
  }

  assert {
    condition     = aws_scheduler_schedule.stop.schedule_expression == "at(2028-02-29T00:00:30)"
    error_message = "One minute of grace is enough."
  }
}

# Applied, so that the next run finds a lab that exists.
run "builds_one_lab" {
  module {
    source = "./tests/mocked"
  }

  variables {
    container_environment = { ZED = "last", ALPHA = "first" }
  }

  assert {
    condition = alltrue([
      for name in [
        aws_ecs_cluster.this.name, aws_ecs_service.this.name, aws_ecs_task_definition.this.family,
        aws_security_group.gateway.name,
      ] : name == "gateway-lab-demo"
    ])
    error_message = "Cluster, service, task family and security group are called gateway-lab-demo."
  }

  assert {
    condition     = aws_iam_role.execution.name == "gateway-lab-demo-execution" && aws_iam_role.task.name == "gateway-lab-demo-task"
    error_message = "The roles are called gateway-lab-demo-execution and gateway-lab-demo-task."
  }

  assert {
    condition = alltrue([
      for r in [aws_iam_role.execution, aws_iam_role.task, aws_iam_role.scheduler, aws_iam_role.stop] :
      r.permissions_boundary == null
    ])
    error_message = "Without a boundary asked for, roles have none."
  }

  # The firewall.

  assert {
    condition = toset([
      for r in aws_vpc_security_group_ingress_rule.gateway :
      "${r.ip_protocol} ${r.from_port}-${r.to_port} ${r.cidr_ipv4}"
    ]) == toset(["tcp 4000-4000 203.0.113.7/32", "tcp 4000-4000 8.8.4.4/32"])
    error_message = "Ingress is exactly the given hosts on the gateway's port."
  }

  assert {
    condition = alltrue([
      for r in aws_vpc_security_group_ingress_rule.gateway :
      r.cidr_ipv6 == null && r.prefix_list_id == null && r.referenced_security_group_id == null
    ])
    error_message = "No ingress rule names anything but an IPv4 host."
  }

  assert {
    condition     = "${aws_vpc_security_group_egress_rule.https.ip_protocol} ${aws_vpc_security_group_egress_rule.https.from_port}-${aws_vpc_security_group_egress_rule.https.to_port}" == "tcp 443-443"
    error_message = "Egress is HTTPS only."
  }

  assert {
    condition     = aws_ecs_service.this.network_configuration[0].security_groups == toset([aws_security_group.gateway.id])
    error_message = "Tasks run behind the gateway's security group and no other."
  }

  assert {
    condition     = length(distinct(aws_subnet.public[*].availability_zone)) == 2 && length(distinct(aws_subnet.public[*].cidr_block)) == 2
    error_message = "The two subnets are in two zones."
  }

  # The roles.

  assert {
    condition = alltrue([
      for role in [aws_iam_role.execution, aws_iam_role.task] :
      jsondecode(role.assume_role_policy) == jsondecode(<<-JSON
        {
          "Version": "2012-10-17",
          "Statement": [{
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Principal": {"Service": "ecs-tasks.amazonaws.com"},
            "Condition": {
              "StringEquals": {"aws:SourceAccount": "111122223333"},
              "ArnLike": {"aws:SourceArn": "arn:aws:ecs:eu-central-1:111122223333:*"}
            }
          }]
        }
      JSON
      )
    ])
    error_message = "Both roles trust ECS tasks of this account and region only."
  }

  assert {
    condition = {
      for s in jsondecode(aws_iam_role_policy.execution.policy).Statement : s.Sid => [s.Effect, s.Action, s.Resource]
      } == {
      RegistryLogin = ["Allow", ["ecr:GetAuthorizationToken"], ["*"]]
      PullImage = [
        "Allow", ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
        ["arn:aws:ecr:eu-central-1:111122223333:repository/gateway-lab"]
      ]
      ReadSecrets = [
        "Allow", ["secretsmanager:GetSecretValue"],
        [
          "arn:aws:secretsmanager:eu-central-1:111122223333:secret:gateway-lab-demo/gateway-key-AbCdEf",
          "arn:aws:secretsmanager:eu-central-1:111122223333:secret:gateway-lab-demo/gateway-tls-GhIjKl",
        ]
      ]
      WriteLogs = [
        "Allow", ["logs:CreateLogStream", "logs:PutLogEvents"],
        ["arn:aws:logs:eu-central-1:111122223333:log-group:/gateway-lab/demo:*"]
      ]
    }
    error_message = "The execution role pulls this repository, reads these secrets and writes this log group, nothing else."
  }

  assert {
    condition = jsondecode(aws_iam_role_policy.task.policy) == jsondecode(<<-JSON
      {
        "Version": "2012-10-17",
        "Statement": [{
          "Effect": "Allow",
          "Action": ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"],
          "Resource": ["arn:aws:bedrock:eu-central-1::foundation-model/amazon.nova-micro-v1:0"]
        }]
      }
    JSON
    )
    error_message = "The task role invokes exactly the lab's model."
  }

  # The end.

  assert {
    condition = [
      aws_scheduler_schedule_group.this.name, aws_scheduler_schedule.stop.group_name, aws_scheduler_schedule.stop.name,
      aws_sfn_state_machine.stop.name, aws_iam_role.scheduler.name, aws_iam_role.stop.name,
      ] == [
      "gateway-lab-demo", "gateway-lab-demo", "stop",
      "gateway-lab-demo-stop", "gateway-lab-demo-scheduler", "gateway-lab-demo-stop",
    ]
    error_message = "Schedule, state machine and their roles are called after the lab."
  }

  assert {
    condition = [
      aws_scheduler_schedule.stop.schedule_expression, aws_scheduler_schedule.stop.schedule_expression_timezone,
      aws_scheduler_schedule.stop.flexible_time_window[0].mode, aws_scheduler_schedule.stop.state,
    ] == ["at(2030-01-31T18:15:00)", "UTC", "OFF", "ENABLED"]
    error_message = "The schedule comes once, a quarter of an hour after the lab's end, in UTC and not later."
  }

  assert {
    condition = [
      aws_scheduler_schedule.stop.target[0].arn, aws_scheduler_schedule.stop.target[0].role_arn,
      jsondecode(aws_scheduler_schedule.stop.target[0].input),
      ] == [
      "arn:aws:states:eu-central-1:111122223333:stateMachine:gateway-lab-demo-stop",
      "arn:aws:iam::111122223333:role/gateway-lab-demo-scheduler", { lab = "demo" },
    ]
    error_message = "The schedule starts the state machine with its own role."
  }

  assert {
    condition     = [for r in aws_scheduler_schedule.stop.target[0].retry_policy : [r.maximum_retry_attempts, r.maximum_event_age_in_seconds]] == [[185, 86400]]
    error_message = "The schedule tries for as long as AWS lets it."
  }

  assert {
    condition     = aws_sfn_state_machine.stop.type == "STANDARD" && aws_sfn_state_machine.stop.role_arn == "arn:aws:iam::111122223333:role/gateway-lab-demo-stop"
    error_message = "The state machine is a standard one with its own role."
  }

  assert {
    condition = jsondecode(aws_sfn_state_machine.stop.definition) == jsondecode(<<-JSON
      {
        "Comment": "Takes the gateway of lab demo to zero tasks",
        "StartAt": "StopService",
        "States": {
          "StopService": {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:ecs:updateService",
            "Parameters": {"Cluster": "gateway-lab-demo", "Service": "gateway-lab-demo", "DesiredCount": 0},
            "TimeoutSeconds": 60,
            "Retry": [
              {
                "ErrorEquals": [
                  "Ecs.ClusterNotFoundException", "Ecs.ServiceNotActiveException", "Ecs.ServiceNotFoundException"
                ],
                "MaxAttempts": 0
              },
              {
                "ErrorEquals": ["States.ALL"],
                "IntervalSeconds": 5, "BackoffRate": 2, "MaxDelaySeconds": 300, "MaxAttempts": 20
              }
            ],
            "Catch": [{
              "ErrorEquals": [
                "Ecs.ClusterNotFoundException", "Ecs.ServiceNotActiveException", "Ecs.ServiceNotFoundException"
              ],
              "Next": "AlreadyGone"
            }],
            "End": true
          },
          "AlreadyGone": {"Type": "Succeed"}
        }
      }
    JSON
    )
    error_message = "The state machine takes this service to zero tasks, tries again, and has nothing to do when it is gone."
  }

  assert {
    condition = [
      for role in [aws_iam_role.scheduler, aws_iam_role.stop] : jsondecode(role.assume_role_policy)
      ] == [
      for trusted in [
        ["scheduler.amazonaws.com", "arn:aws:scheduler:eu-central-1:111122223333:schedule-group/gateway-lab-demo"],
        ["states.amazonaws.com", "arn:aws:states:eu-central-1:111122223333:stateMachine:gateway-lab-demo-stop"],
        ] : {
        Version = "2012-10-17"
        Statement = [{
          Effect    = "Allow"
          Action    = "sts:AssumeRole"
          Principal = { Service = trusted[0] }
          Condition = {
            StringEquals = { "aws:SourceAccount" = "111122223333" }
            ArnLike      = { "aws:SourceArn" = trusted[1] }
          }
        }]
      }
    ]
    error_message = "The roles trust Scheduler for this group, and Step Functions for this state machine, and nobody else."
  }

  assert {
    condition = [
      for policy in [aws_iam_role_policy.scheduler, aws_iam_role_policy.stop] : jsondecode(policy.policy)
      ] == [
      for may in [
        ["states:StartExecution", "arn:aws:states:eu-central-1:111122223333:stateMachine:gateway-lab-demo-stop"],
        ["ecs:UpdateService", "arn:aws:ecs:eu-central-1:111122223333:service/gateway-lab-demo/gateway-lab-demo"],
        ] : {
        Version   = "2012-10-17"
        Statement = [{ Effect = "Allow", Action = [may[0]], Resource = [may[1]] }]
      }
    ]
    error_message = "The roles may start this state machine and update this service, nothing else."
  }

  assert {
    condition     = aws_iam_role_policy.scheduler.role == aws_iam_role.scheduler.id && aws_iam_role_policy.stop.role == aws_iam_role.stop.id
    error_message = "Each role has its own policy."
  }

  # The container.

  assert {
    condition = jsondecode(aws_ecs_task_definition.this.container_definitions) == jsondecode(<<-JSON
      [{
        "name": "gateway",
        "image": "111122223333.dkr.ecr.eu-central-1.amazonaws.com/gateway-lab:0123abcd",
        "essential": true,
        "portMappings": [{"containerPort": 4000, "hostPort": 4000, "protocol": "tcp"}],
        "environment": [
          {"name": "ALPHA", "value": "first"},
          {"name": "AWS_REGION", "value": "eu-central-1"},
          {"name": "GATEWAY_TLS_NAME", "value": "gateway-lab-demo.internal"},
          {"name": "GATEWAY_TLS_VERSION", "value": "1"},
          {"name": "PORT", "value": "4000"},
          {"name": "ZED", "value": "last"}
        ],
        "secrets": [
          {
            "name": "LITELLM_MASTER_KEY",
            "valueFrom": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:gateway-lab-demo/gateway-key-AbCdEf"
          },
          {
            "name": "GATEWAY_TLS_PEM",
            "valueFrom": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:gateway-lab-demo/gateway-tls-GhIjKl"
          }
        ],
        "user": "65532:65532",
        "readonlyRootFilesystem": true,
        "healthCheck": {
          "command": ["CMD", "python3", "-I", "/opt/gateway/healthcheck.py"],
          "interval": 10, "timeout": 5, "retries": 3, "startPeriod": 120
        },
        "stopTimeout": 120,
        "linuxParameters": {"initProcessEnabled": true, "capabilities": {"drop": ["ALL"]}},
        "logConfiguration": {
          "logDriver": "awslogs",
          "options": {
            "awslogs-group": "/gateway-lab/demo",
            "awslogs-region": "eu-central-1",
            "awslogs-stream-prefix": "gateway"
          }
        }
      }]
    JSON
    )
    error_message = "The container definition is not the one that rollout, health check and log reader rely on."
  }

  assert {
    condition     = aws_ecs_task_definition.this.skip_destroy && aws_ecs_task_definition.this.network_mode == "awsvpc"
    error_message = "A replaced revision stays registered for a rollback."
  }

  # The service.

  assert {
    condition = [
      for s in aws_ecs_service.this.capacity_provider_strategy : [s.capacity_provider, s.weight]
    ] == [["FARGATE_SPOT", 1]]
    error_message = "The service runs on Fargate Spot."
  }

  assert {
    condition     = aws_ecs_cluster_capacity_providers.this[0].capacity_providers == toset(["FARGATE", "FARGATE_SPOT"])
    error_message = "The cluster has Spot and on-demand capacity."
  }

  assert {
    condition     = aws_ecs_service.this.deployment_circuit_breaker[0].enable && aws_ecs_service.this.deployment_circuit_breaker[0].rollback
    error_message = "A deployment that fails is rolled back."
  }

  assert {
    condition     = aws_ecs_service.this.deployment_minimum_healthy_percent == 100 && aws_ecs_service.this.deployment_maximum_percent == 200
    error_message = "The old task serves until the new one is healthy."
  }

  assert {
    condition     = aws_ecs_service.this.desired_count == 1 && aws_ecs_service.this.network_configuration[0].assign_public_ip
    error_message = "By default one task runs, with a public address."
  }

  assert {
    condition     = aws_ecs_service.this.force_delete && !aws_ecs_service.this.wait_for_steady_state
    error_message = "Apply does not wait for tasks, and a destroy ends them."
  }

  # Key and tags.

  assert {
    condition     = aws_secretsmanager_secret_version.this.secret_string_wo_version == 1
    error_message = "The first key has version 1."
  }

  assert {
    condition     = aws_secretsmanager_secret.tls.name == "gateway-lab-demo/gateway-tls" && output.tls_name == "gateway-lab-demo.internal"
    error_message = "The certificate's secret and name follow from the lab's name."
  }

  assert {
    condition     = aws_ecs_cluster.this.tags == tomap({ "lab:expires-at" = "2030-01-31T18:00:00Z" })
    error_message = "The cluster's tag names the lab's end."
  }

  assert {
    condition = local.tags == {
      "lab:id"         = "demo"
      "lab:project"    = "gateway-lab"
      "lab:owner"      = "someone@example.com"
      "lab:managed-by" = "terraform"
    }
    error_message = "The tags name lab, project, owner and tool."
  }

  assert {
    condition = !strcontains(jsonencode([
      output.cluster_name, output.service_name, output.task_definition_arn, output.container_name,
      output.security_group_id, output.log_group_name, output.secret_arn, output.secret_name,
      output.vpc_id, output.subnet_ids, output.task_role_arn, output.execution_role_arn,
      output.gateway_port, output.schedule_group_name, output.schedule_name, output.state_machine_arn,
      output.tls_name,
    ]), "canary")
    error_message = "No output holds the key or the certificate."
  }

  assert {
    condition     = aws_cloudwatch_log_group.this.retention_in_days == 7
    error_message = "Logs are kept for a week by default."
  }
}

run "leaves_the_service_to_the_rollout" {
  command = plan

  module {
    source = "./tests/mocked"
  }

  variables {
    image         = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/gateway-lab:another"
    desired_count = 0
  }

  assert {
    condition     = aws_ecs_service.this.desired_count == 1 && aws_ecs_service.this.task_definition == run.builds_one_lab.task_definition_arn
    error_message = "Apply never points a running service to another revision, nor stops its tasks."
  }
}
