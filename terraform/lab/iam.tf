locals {
  bedrock = "arn:${local.partition}:bedrock"
  invoke  = ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"]

  on_demand_models = distinct([for m in var.models : m.model_id if m.inference_profile_id == null])

  # One entry per profile, though several aliases may share it.
  profiles = {
    for p in distinct([
      for m in var.models : m.inference_profile_id if m.inference_profile_id != null
      ]) : p => {
      arn = "${local.bedrock}:${local.region}:${local.account}:inference-profile/${p}"
      models = sort(distinct(flatten([
        for m in var.models : [
          # A global profile is also authorised against the model's ARN without a region.
          for r in concat(tolist(m.regions), startswith(p, "global.") ? [""] : []) :
          "${local.bedrock}:${r}::foundation-model/${m.model_id}"
        ] if m.inference_profile_id == p
      ])))
    }
  }

  # AWS's pattern against the confused deputy for ECS tasks. ECS sends no narrower source ARN:
  # a cluster cannot be named here.
  ecs_tasks_trust = {
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account }
        ArnLike      = { "aws:SourceArn" = "arn:${local.partition}:ecs:${local.region}:${local.account}:*" }
      }
    }]
  }
}

# Used by ECS, before the container starts and while it runs.
resource "aws_iam_role" "execution" {
  name                 = "${local.name}-execution"
  description          = "Lets ECS start the gateway of lab ${var.lab}"
  tags                 = local.role_tags
  permissions_boundary = local.role_boundary
  assume_role_policy   = jsonencode(local.ecs_tasks_trust)
}

resource "aws_iam_role_policy" "execution" {
  name = "start-gateway"
  role = aws_iam_role.execution.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "RegistryLogin"
        Effect = "Allow"
        Action = ["ecr:GetAuthorizationToken"]
        # AWS knows no narrower resource for this action.
        Resource = ["*"]
      },
      {
        Sid      = "PullImage"
        Effect   = "Allow"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = [var.repository_arn]
      },
      {
        Sid      = "ReadSecrets"
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue"]
        Resource = [aws_secretsmanager_secret.this.arn, aws_secretsmanager_secret.tls.arn]
      },
      {
        Sid    = "WriteLogs"
        Effect = "Allow"
        Action = ["logs:CreateLogStream", "logs:PutLogEvents"]
        # Streams are named after tasks, which do not exist yet.
        Resource = ["${aws_cloudwatch_log_group.this.arn}:*"]
      },
    ]
  })
}

# Used by the gateway itself.
resource "aws_iam_role" "task" {
  name                 = "${local.name}-task"
  description          = "Lets the gateway of lab ${var.lab} call its models"
  tags                 = local.role_tags
  permissions_boundary = local.role_boundary
  assume_role_policy   = jsonencode(local.ecs_tasks_trust)
}

resource "aws_iam_role_policy" "task" {
  name = "invoke-models"
  role = aws_iam_role.task.id

  policy = jsonencode({
    Version = "2012-10-17"
    # Statements differ in type by their conditions, and Terraform wants one type per list.
    Statement = flatten([
      length(local.on_demand_models) == 0 ? [] : [jsondecode(jsonencode({
        Effect   = "Allow"
        Action   = local.invoke
        Resource = [for id in local.on_demand_models : "${local.bedrock}:${local.region}::foundation-model/${id}"]
      }))],
      length(local.profiles) == 0 ? [] : [jsondecode(jsonencode({
        Effect   = "Allow"
        Action   = local.invoke
        Resource = [for p in local.profiles : p.arn]
      }))],
      # The models behind a profile answer only through that profile.
      [for p in local.profiles : jsondecode(jsonencode({
        Effect    = "Allow"
        Action    = local.invoke
        Resource  = p.models
        Condition = { StringEquals = { "bedrock:InferenceProfileArn" = p.arn } }
      }))],
    ])
  })
}
